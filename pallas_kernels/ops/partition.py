"""The partitioning of the operator over a device mesh: by samples, channels and rows, never by columns.

XLA cannot partition a kernel; by itself it would gather sharded inputs on every device. Here each device computes its
own samples, channels and rows. The forward pass needs no collective but an exchange of halos, where rows are split
(`halo.py`). The backward pass needs that, and two reductions: of the spatial filter's cotangent over the devices that
share its group's channels, and of the channel filter's over those that share an image.

Under a mesh of Auto axes `custom_partitioning` describes this to XLA, under Explicit axes `jax.shard_map` does. Inside
a user's own `jax.shard_map` nothing is left to partition. Where that leaves Auto axes, or a mesh has axes of both
types, arrays are gathered over the Auto ones. `jax.vmap` adds a leading axis to all arrays. The mesh may split it as it
splits the samples, and each device folds its part into its samples.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels.ops.form import Form, Name
from pallas_kernels.ops.halo import form_on_rows
from pallas_kernels.ops.lowering import x64_as
from pallas_kernels.ops.spec import accumulator_dtype

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

# (form on one device, *arrays) -> results
OnDevice = Callable[..., Sequence[Array]]


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


def split(on_device: OnDevice, form: Form, mapped: int = 0) -> Callable[..., tuple[Array, ...]]:
    """The form as a function of its arrays, partitioned over their mesh.

    Args:
      on_device: evaluates a form on one device.
      form: of the whole arrays.
      mapped: number of axes of `jax.vmap`, with which all arrays begin.
    """
    spec, height = form.spec, form.size[0]
    layout = Layout(form.arrays, form.results, form.groups, mapped)
    if isinstance(height, int) and height == spec.stride[0] * spec.grid(form.size)[0]:
        rows = {"x": spec.stride[0], "y": spec.scale}
        layout = layout._replace(positions=height // spec.stride[0], rows=rows)
    return over_mesh(functools.partial(form_on_shards, on_device, form, mapped), layout)


def over_mesh(on_shards: Callable[..., tuple[Array, ...]], layout: Layout) -> Callable[..., tuple[Array, ...]]:
    """A function of arrays, partitioned over their mesh.

    Args:
      on_shards: (specs, *arrays) -> results on the shards of one device; specs is None where the arrays are whole.
      layout: of the whole arrays.
    """
    call = _Call(on_shards, layout)

    def function(*arrays: Array) -> tuple[Array, ...]:
        mesh = jax.typeof(arrays[0]).sharding.mesh
        if mesh.explicit_axes or (mesh.manual_axes and mesh.auto_axes):
            return call.over_explicit_axes(*arrays)
        over_auto_axes = custom_partitioning(functools.partial(on_shards, None))
        channels = arrays[0].shape[-1]
        over_auto_axes.def_partition(
            call.partition, sharding_rule=lambda mesh, *_: _propagation_rule(layout, channels, mesh)
        )
        return over_auto_axes(*arrays)

    return function


@dataclasses.dataclass(frozen=True)
class _Call:
    """The arguments of `over_mesh`."""

    on_shards: Callable[..., tuple[Array, ...]]
    layout: Layout

    def partition(self, mesh: Any, operand_shapes: Sequence[Any], result_shapes: Sequence[Any]):
        """The callback of `custom_partitioning`: mesh, function per device, shardings of results and of operands."""
        shardings = [operand.sharding for operand in operand_shapes]
        if not isinstance(shardings[0], NamedSharding):
            # `jax.jit` under `jax.set_mesh` with arguments on no mesh: JAX names no axes, and nothing is partitioned.
            mesh = Mesh(sorted(shardings[0].device_set, key=lambda device: device.id), ("devices",))
            shardings = [NamedSharding(mesh, PartitionSpec())] * len(shardings)
        specs = self._specs([sharding.spec for sharding in shardings], mesh.shape)
        operands, results = (
            tuple(NamedSharding(mesh, spec) for spec in specs.of(names))
            for names in (self.layout.arrays, self.layout.results)
        )

        def on_shards(*arrays: Array) -> tuple[Array, ...]:
            with x64_as(arrays):
                return self.on_shards(specs, *arrays)

        return mesh, on_shards, results, operands

    def over_explicit_axes(self, *arrays: Array) -> tuple[Array, ...]:
        """`jax.shard_map` of the function, over the Explicit or the remaining Auto axes of the mesh."""
        shardings = [jax.typeof(array).sharding for array in arrays]
        mesh = shardings[0].mesh
        specs = self._specs([sharding.spec for sharding in shardings], mesh.shape)
        in_specs, out_specs = specs.of(self.layout.arrays), specs.of(self.layout.results)
        if mesh.explicit_axes:
            arrays = tuple(jax.sharding.reshard(array, spec) for array, spec in zip(arrays, in_specs, strict=True))
        local = functools.partial(self.on_shards, specs)
        # Inside a user's `shard_map` the results must keep their types of varying axes.
        check_vma = bool(mesh.manual_axes)
        return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*arrays)

    def _specs(self, specs: Sequence[Iterable[Any]], mesh_shape: Mapping[str, int]) -> "OperandSpecs":
        return OperandSpecs.choose(self.layout, specs, mesh_shape)


def form_on_shards(
    on_device: OnDevice, form: Form, mapped: int, specs: "OperandSpecs | None", *arrays: Array
) -> tuple[Array, ...]:
    """The form on the shards of one device; sums dspatial over the devices that share groups."""
    axis = mapped + GROUP_AXIS

    def evaluate(form: Form, *arrays: Array) -> tuple[Array, ...]:
        on_samples = functools.partial(_on_samples, on_device, mapped=mapped)
        if specs is None or not specs.height:
            return on_samples(form, *arrays)
        return form_on_rows(on_samples, form, specs.height, specs.height_devices, *arrays)

    if specs is None or not specs.share_groups:
        groups = form.groups if specs is None else form.groups // specs.group_devices
        return evaluate(dataclasses.replace(form, groups=groups), *arrays)
    group = specs.first_group(form.groups)
    arrays = tuple(
        jax.lax.dynamic_slice_in_dim(array, group, 1, axis) if name == "spatial" else array
        for name, array in zip(form.arrays, arrays, strict=True)
    )
    # A result is rounded once, after the sum.
    wide = accumulator_dtype(*arrays)
    dtypes = tuple(wide if name == "spatial" else dtype for name, dtype in zip(form.results, form.dtypes, strict=True))
    outputs = list(evaluate(dataclasses.replace(form, groups=1, dtypes=dtypes), *arrays))
    if "spatial" in form.results:
        at = form.results.index("spatial")
        mine = outputs[at]
        shape = (*mine.shape[:axis], form.groups, *mine.shape[axis + 1 :])
        every = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(shape, wide), mine, group, axis)
        outputs[at] = jax.lax.psum(every, specs.channel).astype(form.dtypes[at])
    return tuple(outputs)


def _on_samples(on_device: OnDevice, form: Form, *arrays: Array, mapped: int) -> tuple[Array, ...]:
    """A form with the mapped axes folded into the samples: on one device, where no other holds any."""
    if not mapped:
        return tuple(on_device(form, *arrays))
    sizes, end = arrays[0].shape[: mapped + 1], mapped + 1
    outputs = on_device(form, *(array.reshape(math.prod(sizes), *array.shape[end:]) for array in arrays))
    return tuple(output.reshape(*sizes, *output.shape[1:]) for output in outputs)


def reshard_like(cotangent: Array, aval: Any) -> Array:
    """The cotangent with the sharding of its value's type, which Explicit axes make part of it."""
    sharding = aval.sharding
    return jax.sharding.reshard(cotangent, sharding.spec) if sharding.mesh.explicit_axes else cotangent


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
        if count(height) == 1 or layout.positions % count(height):
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


def _propagation_rule(layout: Layout, channels: int, mesh: Mesh) -> tuple[str, dict[str, int]]:
    """Shardy's rule, with the sizes of its factors: mapped axes, samples, rows, channels and groups correspond.

    No other axes do. Channels are those of each group in turn. That is told where groups divide evenly over all devices
    of the mesh: elsewhere Shardy might split them over more devices than there are groups.
    """
    grouped = any("group" in AXES[name] for name in (*layout.arrays, *layout.results))
    several = grouped and layout.groups > 1 and not mesh.empty and layout.groups % mesh.size == 0
    channel = "(group member)" if several else "channel"
    free = (f"free{n}" for n in range(100))
    leading = [f"mapped{n}" for n in range(layout.mapped)]
    sizes = {"member": channels // layout.groups} if several else {}
    names = (*layout.arrays, *layout.results)

    def axes(name: Name) -> str:
        known = {"batch": "batch", "channel": channel, "group": "group"}
        if layout.positions > 1:
            known["height"] = "row" if layout.rows.get(name, 1) == 1 else f"(row {name})"
        return " ".join([*leading, *(known.get(axis) or next(free) for axis in AXES[name])])

    if layout.positions > 1:
        sizes |= {name: count for name, count in layout.rows.items() if name in names and count > 1}
        if all(layout.rows.get(name, 1) > 1 for name in names if "height" in AXES[name]):
            sizes["row"] = layout.positions
    rule = ", ".join(map(axes, layout.arrays)) + " -> " + ", ".join(map(axes, layout.results))
    return rule, sizes
