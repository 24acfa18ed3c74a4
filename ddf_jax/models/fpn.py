"""Feature pyramid network of Lin et al., CVPR 2017, with any upsampler between its sums and any operator behind."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import strided
from ddf_jax.layers import Conv, Nearest, PointwiseConv
from ddf_jax.layers.options import python_numbers
from ddf_jax.models.initial_keys import InitialKeys
from ddf_jax.models.resnet import FeatureInfo
from ddf_jax.models.slots import SpatialOp, Upsampler, partial_layer

CONVOLUTION = partial_layer(Conv, use_bias=True, kernel_init=nnx.initializers.xavier_uniform())


class FPN(nnx.Module):
    """Feature pyramid: the stages of a backbone, finest first, to maps with equal numbers of channels.

    Each stage has a 1×1 convolution (`laterals`). From the coarsest stage down, each sum is upsampled and added to the
    next finer map; a 3×3 convolution of each sum is an output (`outputs`). An extra level takes every second pixel of
    the previous one, or is a 3×3 convolution with a stride of 2 (also in `outputs`): the first of the coarsest stage,
    the next of the previous one. A backbone with strides 4, 8, 16 and 32 and one extra level give P2 to P6 of Faster
    R-CNN; without its finest stage, and with two extra convolutions, P3 to P7 of RetinaNet.

    Images may have any size: an upsampled map is cropped to the finer stage, ceil(H / stride).

    Args:
        feature_info: channels and stride of each stage, a model's `feature_info`.
        channels: of each output.
        upsampler: factory of the module that upsamples a level to the next finer one by the ratio of their strides.
        op: factory of the module that stands behind each sum, by default a convolution.
        extra_levels: number of levels beyond the coarsest stage.
        extra: how they are made.
        dtype: compute dtype (default: that of the features).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    The attribute `feature_info` has the channels and strides of the outputs.

    Raises:
        UserError: a stride is not a multiple of the previous one, `extra_levels` is negative, `extra` is unknown, or
            features do not fit the stages.

    References: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017; with DDF-Up: Zhou et al.,
    "Decoupled Dynamic Filter Networks", CVPR 2021, Figure 6a.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> from ddf_jax.layers import DDFUp
    >>> from ddf_jax.models.slots import partial_layer
    >>> stages = FeatureInfo(32, 4), FeatureInfo(64, 8)
    >>> fpn = lambda *features: FPN(stages, channels=16, upsampler=partial_layer(DDFUp), rngs=nnx.Rngs(0))(features)
    >>> [level.shape for level in jax.eval_shape(fpn, jnp.ones((1, 25, 17, 32)), jnp.ones((1, 13, 9, 64)))]
    [(1, 25, 17, 16), (1, 13, 9, 16), (1, 7, 5, 16)]
    """

    @python_numbers
    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        *,
        channels: int = 256,
        upsampler: Upsampler = Nearest,
        op: SpatialOp = CONVOLUTION,
        extra_levels: Annotated[int, "may be 0"] = 1,
        extra: Literal["pool", "convolution"] = "pool",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        strides = [info.stride for info in feature_info]
        if not strides or any(coarse % fine for fine, coarse in itertools.pairwise(strides)):
            raise UserError(f"Each stage's stride must be a multiple of the previous one, got {strides}.")
        if type(extra_levels) is not int or extra_levels < 0:
            raise UserError(f"`extra_levels` must be an int ≥ 0, got {extra_levels!r}.")
        if extra not in ("pool", "convolution"):
            raise UserError(f'`extra` must be "pool" or "convolution", got {extra!r}.')
        self.stages = tuple(feature_info)
        self.scales = tuple(coarse // fine for fine, coarse in itertools.pairwise(strides))
        self.channels = channels
        self.extra_levels = extra_levels
        strides += [strides[-1] * 2 ** (level + 1) for level in range(extra_levels)]
        self.feature_info = tuple(FeatureInfo(channels, stride) for stride in strides)
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": InitialKeys(rngs)}
        self.laterals = nnx.List(
            [
                PointwiseConv(
                    info.channels, channels, use_bias=True, kernel_init=nnx.initializers.xavier_uniform(), **dtypes
                )
                for info in feature_info
            ]
        )
        self.outputs = nnx.List([op(channels, channels, stride=1, **dtypes) for _ in feature_info])
        if extra == "convolution":
            widths = [feature_info[-1].channels] + [channels] * extra_levels
            self.outputs.extend(CONVOLUTION(width, channels, stride=2, **dtypes) for width in widths[:extra_levels])
        self.upsamplers = nnx.List([upsampler(channels, scale=scale, **dtypes) for scale in self.scales])

    def __call__(self, features: Sequence[Array]) -> list[Array]:
        """Feature maps [B, ceil(H/stride), ceil(W/stride), C] of all stages to those of all levels."""
        self._check(features)
        maps = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        for level in reversed(range(len(self.upsamplers))):
            height, width = maps[level].shape[1:3]
            maps[level] += self.upsamplers[level](maps[level + 1])[:, :height, :width]
        levels = [output(m) for output, m in zip(self.outputs, maps, strict=False)]
        extra, coarsest = self.outputs[len(maps) :], features[-1]
        for level in range(self.extra_levels):
            coarsest = extra[level](coarsest) if extra else strided(levels[-1], 2)
            levels.append(coarsest)
        return levels

    def _check(self, features: Sequence[Array]) -> None:
        shapes = [feature.shape for feature in features]
        channels = [info.channels for info in self.stages]
        if [shape[-1] for shape in shapes] != channels:
            raise UserError(f"Features must have {channels} channels, those of `feature_info`, got {shapes}.")
        for scale, (finer, coarser) in zip(self.scales, itertools.pairwise(shapes), strict=True):
            expected = tuple((size - 1) // scale + 1 for size in finer[1:3])
            if coarser[1:3] != expected:
                raise UserError(f"The stage after {finer}, {scale} times as coarse, must be {expected}, got {coarser}.")
