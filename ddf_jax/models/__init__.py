"""Models by name: `create("ddf_resnet50", rngs=nnx.Rngs(0))`, `list_models("ddf_*")`."""

from ddf_jax.models import ddf_resnet as ddf_resnet  # importing a family registers its names
from ddf_jax.models import resnet as resnet
from ddf_jax.models.registry import create as create
from ddf_jax.models.registry import get_config as get_config
from ddf_jax.models.registry import list_models as list_models
from ddf_jax.models.registry import register as register
