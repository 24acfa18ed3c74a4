"""Layers of the papers as Flax modules: channels last, one file a paper."""

from ddf_jax.layers.attention_augmented import AttentionAugmentedConv as AttentionAugmentedConv
from ddf_jax.layers.bam import BAM as BAM
from ddf_jax.layers.batch_norm import BatchNorm as BatchNorm
from ddf_jax.layers.bivolution import Bivolution as Bivolution
from ddf_jax.layers.bivolution import SpatialAugmentation as SpatialAugmentation
from ddf_jax.layers.cbam import CBAM as CBAM
from ddf_jax.layers.condconv import CondConv as CondConv
from ddf_jax.layers.condconv import DepthwiseCondConv as DepthwiseCondConv
from ddf_jax.layers.convolution import Conv as Conv
from ddf_jax.layers.convolution import Linear as Linear
from ddf_jax.layers.convolution import PointwiseConv as PointwiseConv
from ddf_jax.layers.dcdc import DCDC as DCDC
from ddf_jax.layers.ddf import DDF as DDF
from ddf_jax.layers.ddf_up import DDFUp as DDFUp
from ddf_jax.layers.dynamic_conv import DynamicConv as DynamicConv
from ddf_jax.layers.eca import ECA as ECA
from ddf_jax.layers.filter_norm import FilterBatchNorm as FilterBatchNorm
from ddf_jax.layers.filter_norm import FilterNorm as FilterNorm
from ddf_jax.layers.filter_norm import FilterSigmoid as FilterSigmoid
from ddf_jax.layers.involution import Involution as Involution
from ddf_jax.layers.pac import PAC as PAC
from ddf_jax.layers.pac import PACUp as PACUp
from ddf_jax.layers.per_sample import per_sample_conv as per_sample_conv
from ddf_jax.layers.squeeze_excitation import SqueezeExcitation as SqueezeExcitation
from ddf_jax.layers.weightnet import DepthwiseWeightNet as DepthwiseWeightNet
