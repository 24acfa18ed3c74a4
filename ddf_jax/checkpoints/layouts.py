"""Rules of conversion: a pair of name templates and the memory layout of their tensor, official (PyTorch) and ours."""

import dataclasses
import functools
from collections.abc import Callable, Container
from typing import Literal

import numpy as np

Naming = Literal["official", "own"]

# torch's BatchNorm counts batches and uses the count only where momentum is None. Our models have no such variable:
# conversion of files keeps the count, models ignore it and are saved with 0.
COUNTER = "num_batches_tracked"
# Constants that FcaNet and Axial-DeepLab keep next to their parameters; our models compute them.
FREQUENCY_TABLE, POSITION_INDEX = "dct_layer.weight", "flatten_index"


def is_buffer(name: str) -> bool:
    """Whether a tensor, by its official name or ours, is one that our models do not have.

    >>> [is_buffer(name) for name in ("bn1.num_batches_tracked", "layer1.0.att.dct_layer.weight", "bn1.weight")]
    [True, True, False]
    """
    return name.endswith((f".{COUNTER}", f".{FREQUENCY_TABLE}", f".{POSITION_INDEX}"))


@dataclasses.dataclass(frozen=True)
class TensorLayout:
    """Conversions of a tensor's axes, called with the tensor and `Rule.size` (0 where that is None)."""

    to_own: Callable[[np.ndarray, int], np.ndarray] = lambda tensor, _: tensor
    to_official: Callable[[np.ndarray, int], np.ndarray] = lambda tensor, _: tensor


@dataclasses.dataclass(frozen=True)
class Size:
    """A number that a layout depends on, from the shapes of 1×1 convolutions next to the tensor.

    `names` are their official names and ours; `of` is called with the input and output channels of each.
    """

    names: tuple[tuple[str, str], ...]
    of: Callable[..., int]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Two name templates and the layout of their tensor.

    Fields in braces are numbers; `{stage}` counts from 1 in official names and from 0 in ours. A rule with `beside` is
    of networks that have a tensor of these two names, and there goes before the rules without.
    """

    official: str
    own: str
    layout: TensorLayout = TensorLayout()
    size: Size | None = None
    beside: tuple[str, str] | None = None

    def is_of(self, naming: Naming, names: Container[str]) -> bool:
        """Whether it is a rule of the network whose tensors have these names."""
        return self.beside is None or self.beside[naming == "own"] in names

    def name(self, naming: Naming) -> str:
        return self.official if naming == "official" else self.own


BINS = 7
"""Of RoIAlign before fully connected layers, along both axes."""


def _conv_to_own(weight: np.ndarray, channels: int) -> np.ndarray:
    if weight.ndim == 5:
        return weight.transpose(0, 3, 4, 2, 1)
    kernel = weight.transpose(2, 3, 1, 0)
    return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


def _conv_to_official(kernel: np.ndarray, channels: int) -> np.ndarray:
    if kernel.ndim == 5:
        return kernel.transpose(0, 4, 3, 1, 2)
    return (kernel[None, None] if kernel.ndim == 2 else kernel).transpose(3, 2, 0, 1)


def _taps_first(tensor: np.ndarray, channels: int) -> np.ndarray:
    """[…, C·T] to […, T·C]."""
    return tensor.reshape(*tensor.shape[:-1], channels, -1).swapaxes(-1, -2).reshape(tensor.shape)


def _taps_last(tensor: np.ndarray, channels: int) -> np.ndarray:
    """[…, T·C] to […, C·T]."""
    return tensor.reshape(*tensor.shape[:-1], -1, channels).swapaxes(-1, -2).reshape(tensor.shape)


def _patch(reorder: Callable[[np.ndarray, int], np.ndarray], tensor: np.ndarray, related: int) -> np.ndarray:
    """Reorders R·T of […, R + R·T] values, of a query and T keys; […, R + 2] are of a pairwise relation."""
    query, keys = tensor[..., :related], tensor[..., related:]
    return tensor if keys.shape[-1] == 2 else np.concatenate([query, reorder(keys, related)], axis=-1)


SAME = TensorLayout()
# [O, I, K, K] and [K, K, I, O]; a 1×1 convolution is a matrix [I, O] in ours. Several kernels are stacked in both.
CONV = TensorLayout(_conv_to_own, _conv_to_official)
CONV1D = TensorLayout(
    lambda weight, channels: weight.transpose(2, 1, 0), lambda kernel, channels: kernel.transpose(2, 1, 0)
)
POINTWISE1D = TensorLayout(lambda weight, _: weight[:, :, 0].T, lambda kernel, _: kernel.T[:, :, None])
LINEAR = TensorLayout(lambda weight, _: weight.T, lambda kernel, _: kernel.T)
# The channel branch generates C·T values in official checkpoints and T·C in ours.
TAPS_WEIGHT = TensorLayout(
    lambda weight, channels: _taps_first(_conv_to_own(weight, 0), channels),
    lambda kernel, channels: _conv_to_official(_taps_last(kernel, channels), 0),
)
TAPS_BIAS = TensorLayout(_taps_first, _taps_last)
TAPS_SCALE = TensorLayout(
    lambda std, channels: std.reshape(channels, -1).T, lambda scale, channels: scale.T.reshape(-1)
)
# The first fully connected layer behind RoIAlign flattens channels first in official checkpoints, bins first in ours.
BINS_LINEAR = TensorLayout(
    lambda weight, _: weight.reshape(len(weight), -1, BINS**2).transpose(2, 1, 0).reshape(-1, len(weight)),
    lambda kernel, _: kernel.reshape(BINS**2, -1, kernel.shape[1]).transpose(2, 1, 0).reshape(kernel.shape[1], -1),
)
# A 2×2 transposed convolution with a stride of 2, [I, O, 2, 2], is a matrix [I, 4·O] in ours.
TRANSPOSED = TensorLayout(
    lambda weight, _: weight.transpose(0, 2, 3, 1).reshape(len(weight), -1),
    lambda kernel, _: kernel.reshape(len(kernel), 2, 2, -1).transpose(0, 3, 1, 2),
)
# In a SAN's checkpoints channel c has the filter of group c mod G, in ours the channels of a group are neighbours.
SHARED = TensorLayout(_taps_last, _taps_first)
SHARED_OUTPUTS = TensorLayout(
    lambda weight, groups: _taps_last(_conv_to_own(weight, 0), groups),
    lambda kernel, groups: _conv_to_official(_taps_first(kernel, groups), 0),
)
SHARED_INPUTS = TensorLayout(
    lambda weight, groups: _taps_last(_conv_to_own(weight, 0).T, groups).T,
    lambda kernel, groups: _conv_to_official(_taps_first(kernel.T, groups).T, 0),
)
# The keys of a patch are [R, T] in its checkpoints and [T, R] in ours.
PATCH = TensorLayout(functools.partial(_patch, _taps_first), functools.partial(_patch, _taps_last))
PATCH_INPUTS = TensorLayout(
    lambda weight, related: _patch(_taps_first, _conv_to_own(weight, 0).T, related).T,
    lambda kernel, related: _conv_to_official(_patch(_taps_last, kernel.T, related).T, 0),
)


def input_channels(*names: str) -> Size:
    """The input channels of the 1×1 convolution with this official name and our one."""
    official, own = names
    return Size(((official, own),), lambda convolution: convolution[0])


_NORM = (
    ("weight", "scale"),
    ("bias", "bias"),
    ("running_mean", "mean"),
    ("running_var", "var"),
    (COUNTER, COUNTER),
)


def norm(
    official: str,
    own: str,
    layout: TensorLayout = SAME,
    size: Size | None = None,
    beside: tuple[str, str] | None = None,
) -> list[Rule]:
    rules = [Rule(f"{official}.{theirs}", f"{own}.{ours}", layout, size, beside) for theirs, ours in _NORM[:-1]]
    return [*rules, Rule(f"{official}.{COUNTER}", f"{own}.{COUNTER}", beside=beside)]


def conv(official: str, own: str) -> list[Rule]:
    return [Rule(f"{official}.weight", f"{own}.kernel", CONV), Rule(f"{official}.bias", f"{own}.bias")]
