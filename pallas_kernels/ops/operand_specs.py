"""How the arrays of a call are split over a device mesh."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import PartitionSpec

from pallas_kernels.ops.form import Name

_AXES_OF_X = ("batch", "height", "width", "channel")
AXES: dict[Name, tuple[str, ...]] = {
    "x": _AXES_OF_X,
    "y": _AXES_OF_X,
    "spatial": ("batch", "height", "width", "sub_pixel", "group", "tap"),
    "channel": ("batch", "sub_pixel", "tap", "channel"),
    "v": _AXES_OF_X,
    "q": _AXES_OF_X,
    "k": _AXES_OF_X,
    "bias": ("group", "tap"),
}
GROUP_AXIS = AXES["spatial"].index("group")


class Layout(NamedTuple):
    """The arrays of a function that is partitioned.

    Args:
      arrays: names of its arrays, the first one like x.
      results: names of its results.
      groups: of the channels.
      mapped: number of axes of `jax.vmap`, with which all arrays begin.
      positions: rows of positions that devices may share; 1 where each needs all.
      rows: of an array for each of them, where that is not 1.
    """

    arrays: tuple[Name, ...]
    results: tuple[Name, ...]
    groups: int
    mapped: int
    positions: int = 1
    rows: Mapping[Name, int] = {}


@dataclasses.dataclass(frozen=True)
class OperandSpecs:
    """The partition specs of all arrays of a call.

    Groups are split with their channels where they divide evenly. Where several devices hold channels of one group,
    each uses that group's filter. Where neither divides the other, the channels are not split. Neither are the rows,
    where each device would not have as many positions of the filter.

    Args:
      mapped: mesh axes that split each mapped axis.
      batch: mesh axes that split the samples.
      height: mesh axes that split the rows.
      height_devices: how many devices split the rows.
      channel: mesh axes that split the channels.
      channel_devices: how many devices split the channels.
      share_groups: whether several devices hold channels of one group.
    """

    mapped: tuple[tuple[str, ...], ...]
    batch: tuple[str, ...]
    height: tuple[str, ...]
    height_devices: int
    channel: tuple[str, ...]
    channel_devices: int
    share_groups: bool

    @property
    def group_devices(self) -> int:
        """How many devices split the groups."""
        return 1 if self.share_groups else self.channel_devices

    @classmethod
    def choose(cls, layout: Layout, specs: Sequence[Iterable[Any]], mesh_shape: Mapping[str, int]) -> "OperandSpecs":
        """The specs for arrays sharded so, x or y first, on a mesh of this shape.

        A mapped axis is split as in the first array that splits it: it may be an axis of one array alone. Samples, rows
        and channels are split as in x (or y).
        """
        groups, mapped, taken = layout.groups, layout.mapped, list[str]()

        def count(axes: tuple[str, ...]) -> int:
            return math.prod(mesh_shape[axis] for axis in axes)

        def take(entries: Iterable[Any]) -> tuple[str, ...]:
            free = (tuple(axis for axis in _as_tuple(entry) if axis not in taken) for entry in entries)
            taken.extend(axes := next(filter(None, free), ()))
            return axes

        padded = [[*spec, *[None] * (mapped + len(AXES["x"]))] for spec in specs]
        split = tuple(take(spec[axis] for spec in padded) for axis in range(mapped))
        batch, height, channel = (
            take([padded[0][mapped + AXES["x"].index(axis)]]) for axis in ("batch", "height", "channel")
        )
        if layout.positions % count(height):
            height = ()
        devices = count(channel)
        if groups % devices and devices % groups:
            channel, devices = (), 1
        return cls(split, batch, height, count(height), channel, devices, share_groups=groups % devices != 0)

    def of(self, names: Sequence[Name]) -> tuple[PartitionSpec, ...]:
        """One spec per array."""
        channel = self.channel or None
        mesh_axes = {
            "batch": self.batch or None,
            "height": self.height or None,
            "channel": channel,
            "group": None if self.share_groups else channel,
        }
        mapped = [axes or None for axes in self.mapped]
        return tuple(PartitionSpec(*mapped, *map(mesh_axes.get, AXES[name])) for name in names)

    def first_group(self, groups: int) -> Array | int:
        """The group of this device's channels, where devices share groups."""
        return 0 if groups == 1 else jax.lax.axis_index(self.channel) // (self.channel_devices // groups)


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
