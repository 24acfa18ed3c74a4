"""Models by name: `create("ddf_resnet50", rngs=nnx.Rngs(0))`, `list_models("ddf_*")`."""

from ddf_jax.models import attention_resnets as attention_resnets  # importing a family registers its names
from ddf_jax.models import binet as binet
from ddf_jax.models import dcdc_resnet as dcdc_resnet
from ddf_jax.models import ddf_resnet as ddf_resnet
from ddf_jax.models import depth_upsampling as depth_upsampling
from ddf_jax.models import detectors as detectors
from ddf_jax.models import dmsg as dmsg
from ddf_jax.models import expert_resnets as expert_resnets
from ddf_jax.models import rednet as rednet
from ddf_jax.models import res2net as res2net
from ddf_jax.models import resnet as resnet
from ddf_jax.models import resnext as resnext
from ddf_jax.models.fpn import FPN as FPN
from ddf_jax.models.registry import abstract as abstract
from ddf_jax.models.registry import create as create
from ddf_jax.models.registry import get_config as get_config
from ddf_jax.models.registry import is_registered as is_registered
from ddf_jax.models.registry import list_models as list_models
from ddf_jax.models.registry import register as register
