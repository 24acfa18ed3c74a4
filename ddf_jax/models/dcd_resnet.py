"""ResNets with dynamic convolution by matrix decomposition in the bottlenecks, and a classifier of the same kind.

Reference: Li et al., "Revisiting Dynamic Convolution via Matrix Decomposition", ICLR 2021, as in its code; MDDC in
tables of later papers.
"""

import dataclasses

from ddf_jax.layers import DCD
from ddf_jax.layers.dcd import DCDLinear
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer


@register
def dcd_resnet50() -> ResNetConfig:
    """DCD-ResNet-50: dynamic convolution by matrix decomposition (Li et al., ICLR 2021)."""
    ops = {"spatial_op": DCD, "pointwise_op": partial_layer(DCD, kernel_size=1), "classifier": DCDLinear}
    return dataclasses.replace(resnet.resnet50(), **ops)
