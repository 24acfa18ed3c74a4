"""ResNets with an omni-dimensional dynamic convolution in place of every convolution of the residual branches.

Reference: Li et al., "Omni-Dimensional Dynamic Convolution", ICLR 2022. The authors' code trains with dropout of 0.1
before the classifier, which is a setting of a run and 0 here: ask for it with `dropout=0.1`. The published FLOPs are
those of the stride in the first convolution of a bottleneck; the code, as here, has it in the second.
"""

import dataclasses

from ddf_jax.layers import ODConv
from ddf_jax.models import resnet
from ddf_jax.models.registry import register
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.slots import partial_layer


def with_odconv(
    base: ResNetConfig, *, kernels: int, reduction: int = 16, temperature: float = 30.0, annealing: float = 0.1
) -> ResNetConfig:
    """`base` with ODConv of so many kernels in the bottlenecks."""
    options = {"kernels": kernels, "reduction": reduction, "temperature": temperature, "annealing": annealing}
    return dataclasses.replace(
        base,
        spatial_op=partial_layer(ODConv, **options),
        pointwise_op=partial_layer(ODConv, kernel_size=1, **options),
    )


@register
def odconv_resnet50(*, temperature: float = 30.0, annealing: float = 0.1) -> ResNetConfig:
    """ODConv-ResNet-50 with one kernel in each convolution"""
    return with_odconv(resnet.resnet50(), kernels=1, temperature=temperature, annealing=annealing)


@register
def odconv_resnet50_4x(*, temperature: float = 30.0, annealing: float = 0.1) -> ResNetConfig:
    """ODConv-ResNet-50 with four kernels in each convolution"""
    return with_odconv(resnet.resnet50(), kernels=4, temperature=temperature, annealing=annealing)
