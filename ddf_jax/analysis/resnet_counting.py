"""Parameters and multiply-accumulates of residual networks, part by part, with equal blocks traced once."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
from flax import nnx
from jax import Array

from ddf_jax.analysis.counting import Complexity, complexity, total
from ddf_jax.functional import global_average
from ddf_jax.layers import Linear
from ddf_jax.models.resnet import ResNetConfig
from ddf_jax.models.san import SANConfig

Size = tuple[int, int]
"""Height and width of an image in pixels."""


def resnet_parts(config: ResNetConfig, size: Size) -> dict[str, Complexity]:
    """The size of `stem`, `stages.0` and so on, and `head`, for one image."""
    shallow = _count_shallow(_shallow(config), size)
    parts = {name: shallow.parts[name] for name in ("stem", "head")}
    for stage, depth in enumerate(config.blocks):
        name = f"stages.{stage}"
        parts[name] = shallow.parts[name]
        if depth > 1:
            parts[name] += (depth - 1) * shallow.repeated[name]
    return parts


class _Shallow(NamedTuple):
    """The parts of a network with the first block of each stage, and the second block of each stage that has one."""

    parts: Mapping[str, Complexity]
    repeated: Mapping[str, Complexity]


def _shallow(config: ResNetConfig) -> ResNetConfig:
    """All blocks of a stage but the first are equal: two are enough, and networks of other depths become equal."""
    return dataclasses.replace(config, blocks=tuple(min(depth, 2) for depth in config.blocks))


@functools.cache
def _count_shallow(config: ResNetConfig, size: Size) -> _Shallow:
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    parts, repeated = {"stem": complexity(model.stem, *config.inputs(*size))}, {}
    x = _feature_map(size, config.width * model.stem.expansion, model.stem.stride, config)
    for stage, (blocks, (channels, stride)) in enumerate(zip(model.stages, model.feature_info, strict=True)):
        y, name = _feature_map(size, channels, stride, config), f"stages.{stage}"
        parts[name] = complexity(blocks[0], x)
        if len(blocks) == 2:
            repeated[name] = complexity(blocks[1], y)
        if stage < len(model.stage_attention):
            parts[name] += complexity(model.stage_attention[stage], y)
        x = y
    parts["head"] = complexity(_PooledHead(model.head), x)
    return _Shallow(MappingProxyType(parts), MappingProxyType(repeated))


def san_complexity(config: SANConfig, size: Size) -> Complexity:
    """The size of a SAN, for one image."""
    depths = (config.stem_blocks, *config.blocks)
    shallow = dataclasses.replace(config, stem_blocks=1, blocks=(1,) * len(config.blocks))
    whole, *blocks = _count_shallow_san(shallow, size)
    return whole + total((depth - 1) * block for depth, block in zip(depths, blocks, strict=True))


@functools.cache
def _count_shallow_san(config: SANConfig, size: Size) -> tuple[Complexity, ...]:
    """The network with one block in its stem and in each stage, and each of these blocks."""
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    places = [(config.width, model.stem.stride), *model.feature_info]
    maps = [
        jax.ShapeDtypeStruct((1, *(length // stride for length in size), channels), config.dtype)
        for channels, stride in places
    ]
    blocks = [stage[0] for stage in (model.stem.blocks, *model.stages)]
    counts = [complexity(block, x) for block, x in zip(blocks, maps, strict=True)]
    return complexity(model, *config.inputs(*size)), *counts


def _feature_map(size: Size, channels: int, stride: int, config: ResNetConfig) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *(-(-length // stride) for length in size), channels), config.dtype)


class _PooledHead(nnx.Module):
    """The end of a classifier."""

    def __init__(self, head: Linear):
        self.head = head

    def __call__(self, x: Array) -> Array:
        return self.head(global_average(x))
