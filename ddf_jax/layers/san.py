"""The self-attention of Zhao et al., CVPR 2020: a filter per pixel from its relations to the pixels around it."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ddf_jax.errors import UserError
from ddf_jax.functional import check_odd, strided
from ddf_jax.layers.batch_norm import BatchNorm, norm_relu
from ddf_jax.layers.convolution import PointwiseConv
from ddf_jax.layers.initializers import uniform_fan_in
from ddf_jax.layers.inputs import as_feature_map
from ddf_jax.layers.options import python_numbers
from pallas_kernels import accumulator_dtype, dynamic_filter


@dataclasses.dataclass(frozen=True)
class Neighbourhood:
    """The K×K pixels around each output pixel, with the mirror image beyond the border."""

    kernel_size: int
    stride: int
    dilation: int

    @property
    def border(self) -> int:
        return self.dilation * (self.kernel_size // 2)

    def centre(self, x: Array) -> Array:
        """[B, H, W, C] to [B, Ho, Wo, C]."""
        return strided(x, self.stride)

    def taps(self, x: Array) -> list[Array]:
        """[B, H, W, C] to T views [B, Ho, Wo, C], row by row."""
        around, size = (self.border, self.border), (x.shape[1], x.shape[2])
        padded = jnp.pad(x, ((0, 0), around, around, (0, 0)), "reflect")
        starts = [(self.dilation * i, self.dilation * j) for i, j in np.ndindex(self.kernel_size, self.kernel_size)]
        return [strided(padded, self.stride, start=start, size=size) for start in starts]


class _Relation(nnx.Module):
    """Queries and keys of R channels, and two times batch normalisation, ReLU and a 1×1 convolution.

    Args:
        in_channels: of the map.
        channels: R.
        sizes: channels of the two convolutions: of the first input, between them, of the last output.
        window: where the keys of a pixel are.
        dtypes: `dtype`, `param_dtype` and `rngs`.
    """

    def __init__(
        self, in_channels: int, channels: int, sizes: tuple[int, int, int], window: Neighbourhood, **dtypes: Any
    ):
        related, hidden, filters = sizes
        self.query = _biased(in_channels, channels, **dtypes)
        self.key = _biased(in_channels, channels, **dtypes)
        self.norm1 = BatchNorm(related, **dtypes)
        self.reduce = PointwiseConv(related, hidden, kernel_init=uniform_fan_in, **dtypes)
        self.norm2 = BatchNorm(hidden, **dtypes)
        self.span = _biased(hidden, filters, **dtypes)
        self.window = window

    def _perceptron(self, x: Array) -> Array:
        return self.span(norm_relu(self.norm2, self.reduce(norm_relu(self.norm1, x))))


class PairwiseRelation(_Relation):
    """The weight of a pair of pixels from the difference of their features and positions: [B, Ho, Wo, G, T].

    A softmax over the taps follows, so that the biases of `span` and of `position` change nothing.
    """

    normalize = "softmax"

    def __init__(self, in_channels: int, channels: int, groups: int, window: Neighbourhood, **dtypes: Any):
        super().__init__(in_channels, channels, (channels + 2, channels, groups), window, **dtypes)
        self.position = _biased(2, 2, **dtypes)

    def __call__(self, x: Array) -> Array:
        # For each sample, on its devices: those that share the batch cannot share a map of one.
        position = self.position(_positions(x) + jnp.zeros_like(x[..., :1]))
        query, key = (jnp.concatenate([part(x), position], axis=-1) for part in (self.query, self.key))
        difference = self.window.centre(query)[..., None, :] - jnp.stack(self.window.taps(key), axis=-2)
        batch, height, width, taps, channels = difference.shape
        filters = self._perceptron(difference.reshape(batch, height, width * taps, channels))
        return filters.reshape(batch, height, width, taps, -1).swapaxes(-1, -2)


class PatchwiseRelation(_Relation):
    """The filters of a pixel from its query and all keys of its patch: [B, Ho, Wo, G, T]."""

    normalize = None

    def __init__(self, in_channels: int, channels: int, groups: int, window: Neighbourhood, **dtypes: Any):
        taps = window.kernel_size**2
        super().__init__(in_channels, channels, (channels * (1 + taps), groups, groups * taps), window, **dtypes)
        self.shape = (groups, taps)

    def __call__(self, x: Array) -> Array:
        patch = [self.window.centre(self.query(x)), *self.window.taps(self.key(x))]
        filters = self._perceptron(jnp.concatenate(patch, axis=-1))
        return filters.reshape(*filters.shape[:3], *self.shape)


RELATIONS = {"pairwise": PairwiseRelation, "patchwise": PatchwiseRelation}


def _biased(in_channels: int, out_channels: int, **dtypes: Any) -> PointwiseConv:
    """A 1×1 convolution with torch's initialisation."""
    return PointwiseConv(in_channels, out_channels, use_bias=True, kernel_init=uniform_fan_in, **dtypes)


def _positions(x: Array) -> Array:
    """Columns and rows from -1 to 1, of a map [B, H, W, C]: [1, H, W, 2]."""

    def from_minus_1_to_1(length: int) -> Array:
        steps = jnp.arange(length, dtype=accumulator_dtype(x))
        return 2 * steps / jnp.maximum(jnp.asarray(length - 1, steps.dtype), 1) - 1

    rows, columns = map(from_minus_1_to_1, x.shape[1:3])
    positions = jnp.stack(jnp.broadcast_arrays(columns[None, :], rows[:, None]), axis=-1)
    return positions[None].astype(x.dtype)


class SelfAttentionModule(nnx.Module):
    r"""A filter per pixel and group of channels, from relations to its K×K neighbourhood: C to out_channels channels.

    .. math:: y_{p,c} = \sum_t w_{p,g(c),t} \; v_{p+t,c}

    with values v = Wx and, beyond the border, the mirror image. Pairwise, a tap's weight depends on two pixels; the
    patchwise filter depends on the whole neighbourhood:

    .. math::
        w_{p,\cdot,t} = \text{softmax}_t\, \gamma([q_p - k_{p+t}, \; Pp - P(p+t)]), \qquad
        w_p = \gamma([q_p, k_{p+t_1}, \dots, k_{p+t_T}])

    where q and k are 1×1 convolutions to C/reduction channels, P one of the two coordinates of a pixel, each from -1 to
    1 over the image, and γ is two times batch normalisation, ReLU and a 1×1 convolution.

    Args:
        in_channels: C.
        out_channels: of the values.
        relation: "pairwise" or "patchwise".
        kernel_size: K, odd.
        stride: of the filter, as in a convolution: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), out_channels].
        dilation: of the filter, as in a convolution.
        group_channels: channels of v that share a filter.
        reduction: ratio of C to the channels of q and k.
        implementation: of `pallas_kernels.dynamic_filter`.
        dtype: compute dtype (default: that of x; float32 for integers).
        param_dtype: storage dtype.
        rngs: random keys of the initialisation.

    Raises:
        UserError: the relation is none of these, the kernel size is even, the groups do not divide the values'
            channels, the reduction leaves no channel, or x is too small to be reflected: H and W must be more than
            dilation·⌊K/2⌋.

    Reference: Zhao et al., "Exploring Self-attention for Image Recognition", CVPR 2020, Section 3, with the subtraction
    and concatenation of Section 4. Channels of a group are neighbours here, and G channels apart in the paper's code.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> layer = lambda x: SelfAttentionModule(32, 16, stride=2, rngs=nnx.Rngs(0))(x)
    >>> jax.eval_shape(layer, jnp.ones((2, 15, 20, 32))).shape
    (2, 8, 10, 16)
    """

    @python_numbers
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        relation: Literal["pairwise", "patchwise"] = "pairwise",
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        group_channels: int = 8,
        reduction: int = 16,
        implementation: str | None = None,
        dtype: jnp.dtype | None = None,
        param_dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if relation not in RELATIONS:
            raise UserError(f"`relation` must be one of {sorted(RELATIONS)}, got {relation!r}.")
        check_odd(kernel_size=kernel_size)
        if out_channels % group_channels:
            raise UserError(f"`group_channels` must divide `out_channels`, got {group_channels} for {out_channels=}.")
        if in_channels < reduction:
            raise UserError(f"`reduction` must leave at least one channel of {in_channels=}, got {reduction}.")
        dtypes = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        groups, related = out_channels // group_channels, in_channels // reduction
        self.window = Neighbourhood(kernel_size, stride, dilation)
        self.spatial_branch = RELATIONS[relation](in_channels, related, groups, self.window, **dtypes)
        self.value = _biased(in_channels, out_channels, **dtypes)
        self.implementation = implementation
        self.in_channels = in_channels
        self.dtype = dtype

    def __call__(self, x: Array) -> Array:
        x = as_feature_map(x, self.in_channels, self.dtype)
        border = self.window.border
        if any(isinstance(length, int) and length <= border for length in x.shape[1:3]):
            raise UserError(
                f"A map that is reflected by {border} pixels must have more rows and columns, got {x.shape}. "
                "Use larger images, a smaller `kernel_size` or fewer stages."
            )
        return dynamic_filter(
            self.value(x),
            self.spatial_branch(x),
            None,
            stride=self.window.stride,
            dilation=self.window.dilation,
            padding_mode="reflect",
            normalize=self.spatial_branch.normalize,
            implementation=self.implementation,
        )
