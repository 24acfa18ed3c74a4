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
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels.ops.form import Form, Name
from pallas_kernels.ops.lowering import x64_as
from pallas_kernels.ops.operand_specs import AXES, Layout, OperandSpecs
from pallas_kernels.ops.shards import OnDevice, form_on_shards


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
            arrays = tuple(
                jax.sharding.reshard(array, NamedSharding(mesh, spec))
                for array, spec in zip(arrays, in_specs, strict=True)
            )
        local = functools.partial(self.on_shards, specs)
        # Inside a user's `shard_map` the results must keep their types of varying axes.
        check_vma = bool(mesh.manual_axes)
        over = None if jax.sharding.get_abstract_mesh() == mesh else mesh  # the arrays' own, without `jax.set_mesh`
        return jax.shard_map(local, mesh=over, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*arrays)

    def _specs(self, specs: Sequence[Iterable[Any]], mesh_shape: Mapping[str, int]) -> OperandSpecs:
        return OperandSpecs.choose(self.layout, specs, mesh_shape)


def reshard_like(cotangent: Array, aval: Any) -> Array:
    """The cotangent with the sharding of its value's type, which Explicit axes make part of it."""
    sharding = aval.sharding
    return jax.sharding.reshard(cotangent, sharding) if sharding.mesh.explicit_axes else cotangent


def _propagation_rule(layout: Layout, channels: int, mesh: Mesh) -> tuple[str, dict[str, int]]:
    """Shardy's rule, with the sizes of its factors: mapped axes, samples, rows, channels and groups correspond.

    No other axes do. Channels are those of each group in turn. That is told where groups divide evenly over all devices
    of the mesh: elsewhere Shardy might split them over more devices than there are groups.
    """
    grouped = any("group" in AXES[name] for name in (*layout.arrays, *layout.results))
    several = grouped and layout.groups > 1 and not mesh.empty and layout.groups % mesh.size == 0
    members = channels // layout.groups
    channel = ("(group member)" if members > 1 else "group") if several else "channel"
    free = (f"free{n}" for n in range(100))
    leading = [f"mapped{n}" for n in range(layout.mapped)]
    sizes = {"member": members} if several and members > 1 else {}
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
