"""The port's networks by the names of the JAX registry."""

import fnmatch
import functools
from collections.abc import Callable, Sequence
from typing import Any

from ddf_jax.errors import UserError
from ddf_jax.registered import nearest
from ddf_jax.torch_port import nat, odconv, resnet, san, variants
from ddf_jax.torch_port.axial import AxialResNet
from ddf_jax.torch_port.dcd import DCDResNet
from ddf_jax.torch_port.fcanet import FcaNet
from ddf_jax.torch_port.rednet import RedNet
from ddf_jax.torch_port.resnet import ResNet


def create(name: str, *, num_classes: int = 1000, **options) -> Any:
    """A network with randomly initialised parameters in float32.

    `ddf_resnet50` is the official repository's `ddf_mul_resnet50` in names, parameters and values.

    Args:
        name: one of `list_models()`.
        num_classes: outputs.
        options: of `ResNet`, `NAT` or `SAN`; also `blocks`, `squeeze_ratio` for DDF and `group_channels` for RedNet.

    Raises:
        UserError: no network has that name.
    """
    if name not in _MODELS:
        raise UserError(f"No port is named {name!r}.{nearest(name, _MODELS)}")
    return _MODELS[name](num_classes=num_classes, **options)


def list_models(pattern: str = "*") -> list[str]:
    """The names of `create` that a shell-style pattern matches."""
    return fnmatch.filter(_MODELS, pattern)


def _variant(depth: int, block, spatial_op=resnet.conv3x3, *, blocks: Sequence[int] | None = None, **options) -> ResNet:
    return ResNet(block, resnet.BOTTLENECK[depth] if blocks is None else blocks, spatial_op, **options)


def _network(network: Callable[..., ResNet], depth: int, *, blocks: Sequence[int] | None = None, **options) -> ResNet:
    return network(resnet.BOTTLENECK[depth] if blocks is None else blocks, **options)


_MODELS: dict[str, Callable[..., Any]] = {
    **resnet.MODELS,
    **{f"rednet{depth}": functools.partial(_network, RedNet, depth) for depth in resnet.BOTTLENECK},
    **{f"se_resnet{depth}": functools.partial(_variant, depth, variants.SEBottleneck) for depth in (50, 101)},
    **{f"eca_resnet{depth}": functools.partial(_variant, depth, variants.ECABottleneck) for depth in (50, 101)},
    **{
        f"resnext{depth}_32x4d": functools.partial(_variant, depth, variants.ResNeXtBottleneck, variants.grouped_conv)
        for depth in (50, 101)
    },
    **{f"res2net{d}_26w_4s": functools.partial(_variant, d, variants.Res2NetBottleneck) for d in (50, 101)},
    **nat.MODELS,
    "res2net50_14w_8s": functools.partial(_variant, 50, variants.Res2NetBottleneck14w8s),
    **{f"fca_resnet{depth}": functools.partial(_network, FcaNet, depth) for depth in (50, 101)},
    "odconv_resnet50": functools.partial(_variant, 50, odconv.ODConvBottleneck),
    "odconv_resnet50_4x": functools.partial(_variant, 50, odconv.ODConvBottleneck4x),
    "dcd_resnet50": functools.partial(_network, DCDResNet, 50),
    "axial_resnet_s": functools.partial(_network, AxialResNet, 50),
    **san.MODELS,
}
