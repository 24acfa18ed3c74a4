"""Layers of the papers as Flax modules: channels last, one file a paper."""

from ddf_jax.layers.batch_norm import BatchNorm as BatchNorm
from ddf_jax.layers.convolution import Conv as Conv
from ddf_jax.layers.convolution import PointwiseConv as PointwiseConv
from ddf_jax.layers.ddf import DDF as DDF
from ddf_jax.layers.filter_norm import FilterBatchNorm as FilterBatchNorm
from ddf_jax.layers.filter_norm import FilterNorm as FilterNorm
from ddf_jax.layers.filter_norm import FilterSigmoid as FilterSigmoid
