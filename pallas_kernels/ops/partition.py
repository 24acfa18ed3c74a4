"""The partitioning of the operator over a device mesh: by samples and channels, never by pixels.

XLA cannot partition a kernel; by itself it would gather sharded inputs on every device. Here each device computes its
own samples and channels. The forward pass needs no collective. The backward pass needs one reduction: of the spatial
filter's cotangent over the devices that share its group's channels.

Under a mesh of Auto axes `custom_partitioning` describes this to XLA, under Explicit axes `jax.shard_map` does. Inside
a user's own `jax.shard_map` nothing is left to partition. Where that leaves Auto axes, or a mesh has axes of both
types, arrays are gathered over the Auto ones. `jax.vmap` folds its axis into the batch.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels.ops.spec import accumulator_dtype

# The name of an array gives its axes. y, dy and dx have those of x; a cotangent those of its input.
Name = Literal["x", "spatial", "channel"]
Names = tuple[Name, ...]
AXES: dict[Name, tuple[str, ...]] = {
    "x": ("batch", "height", "width", "channel"),
    "spatial": ("batch", "height", "width", "sub_pixel", "group", "tap"),
    "channel": ("batch", "sub_pixel", "tap", "channel"),
}
GROUP_AXIS = AXES["spatial"].index("group")


@functools.cache
def split(function: Callable[..., tuple[Array, ...]], statics: tuple, operands: Names, results: Names) -> Callable:
    """`function(*statics, *arrays) -> tuple of arrays`, partitioned over the mesh of the arrays.

    Args:
      function: computes the operator or its cotangents on one device. It must be a module's function, because the cache
        compares it by identity.
      statics: its leading arguments, hashable.
      operands: names of the arrays it takes; the first is "x".
      results: names of the arrays it returns.
    """
    call = _Call(functools.partial(function, *statics), operands, results)
    over_auto_axes = custom_partitioning(call.function)
    over_auto_axes.def_partition(call.partition, sharding_rule=_propagation_rule(operands, results))

    @jax.custom_batching.custom_vmap
    def over_mesh(*arrays: Array) -> tuple[Array, ...]:
        mesh = jax.typeof(arrays[0]).sharding.mesh
        if mesh.explicit_axes or (mesh.manual_axes and mesh.auto_axes):
            return call.over_explicit_axes(*arrays)
        return over_auto_axes(*arrays)

    @over_mesh.def_vmap
    def fold_into_batch(axis_size: int, batched: Sequence[bool], *arrays: Array):
        folding = _Folding.of(axis_size, batched, arrays)
        outputs = over_mesh(*map(folding.fold, arrays, batched))
        return tuple(map(folding.unfold, outputs)), (True,) * len(outputs)

    return over_mesh


@dataclasses.dataclass(frozen=True)
class _Call:
    """A function of arrays on one device, with the names of its operands and results."""

    function: Callable[..., tuple[Array, ...]]
    operands: Names
    results: Names

    def partition(self, mesh: Any, operand_shapes: Sequence[Any], result_shapes: Sequence[Any]):
        """The callback of `custom_partitioning`: mesh, function per device, shardings of results and of operands."""
        x = operand_shapes[0].sharding
        if not isinstance(x, NamedSharding):
            # `jax.jit` under `jax.set_mesh` with arguments on no mesh: JAX names no axes, and nothing is partitioned.
            mesh = Mesh(sorted(x.device_set, key=lambda device: device.id), ("devices",))
            x = NamedSharding(mesh, PartitionSpec())
        specs = self._specs([operand.shape for operand in operand_shapes], (*x.spec,), mesh.shape)
        operands, results = (
            tuple(NamedSharding(mesh, spec) for spec in specs.of(names)) for names in (self.operands, self.results)
        )
        return mesh, functools.partial(self.on_device, specs), results, operands

    def over_explicit_axes(self, *arrays: Array) -> tuple[Array, ...]:
        """`jax.shard_map` of the function, over the Explicit or the remaining Auto axes of the mesh."""
        x = jax.typeof(arrays[0]).sharding
        specs = self._specs([array.shape for array in arrays], x.spec, x.mesh.shape)
        in_specs, out_specs = specs.of(self.operands), specs.of(self.results)
        if x.mesh.explicit_axes:
            arrays = tuple(jax.sharding.reshard(array, spec) for array, spec in zip(arrays, in_specs, strict=True))
        local = functools.partial(self.on_device, specs)
        # Inside a user's `shard_map` the results must keep their types of varying axes.
        check_vma = bool(x.mesh.manual_axes)
        return jax.shard_map(local, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma)(*arrays)

    def on_device(self, specs: "OperandSpecs", *arrays: Array) -> tuple[Array, ...]:
        """The function on the shards of one device; sums dspatial over the devices that share groups."""
        if "spatial" not in self.operands or not specs.share_groups:
            return self.function(*arrays)
        at = self.operands.index("spatial")
        spatial, has_cotangent = arrays[at], "spatial" in self.results
        wide = accumulator_dtype(spatial)
        group = specs.first_group(spatial.shape[GROUP_AXIS])
        own = jax.lax.dynamic_slice_in_dim(spatial, group, 1, GROUP_AXIS)
        if has_cotangent:
            own = own.astype(wide)  # so that its cotangent is rounded once, after the sum
        outputs = list(self.function(*arrays[:at], own, *arrays[at + 1 :]))
        if has_cotangent:
            at = self.results.index("spatial")
            mine = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(spatial.shape, wide), outputs[at], group, GROUP_AXIS)
            outputs[at] = jax.lax.psum(mine, specs.channel).astype(spatial.dtype)
        return tuple(outputs)

    def _specs(
        self, shapes: Sequence[tuple[int, ...]], x_spec: Sequence[Any], mesh_shape: Mapping[str, int]
    ) -> "OperandSpecs":
        groups = shapes[self.operands.index("spatial")][GROUP_AXIS] if "spatial" in self.operands else 1
        return OperandSpecs.choose(groups, x_spec, mesh_shape)


@dataclasses.dataclass(frozen=True)
class _Folding:
    """`jax.vmap`'s axis folded into the batch.

    Args:
      axis_size: of the mapped axis.
      mapped: mesh axes that shard the mapped axis.
      samples: mesh axes that shard the samples.
    """

    axis_size: int
    mapped: tuple[str, ...]
    samples: tuple[str, ...]

    @classmethod
    def of(cls, axis_size: int, batched: Sequence[bool], arrays: Sequence[Array]) -> "_Folding":
        """The folding of arrays, those that are `batched` with the mapped axis first."""
        specs = [
            PartitionSpec(*([] if is_batched else [None]), *jax.typeof(array).sharding.spec)
            for array, is_batched in zip(arrays, batched, strict=True)
        ]
        mapped = next((axes for spec in specs if (axes := _as_tuple(spec[0]))), ())
        return cls(axis_size, mapped, samples=_as_tuple(specs[0][1]))

    def fold(self, array: Array, is_batched: bool) -> Array:
        """[N, B, …] or [B, …] to [B·N, …], or to [N·B, …] where the mapped axis is sharded: its shards stay whole."""
        array = array if is_batched else jnp.broadcast_to(array, (self.axis_size, *array.shape))
        if not self.mapped:
            array = array.swapaxes(0, 1)
            return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
        rest = [_without(entry, self.samples) for entry in jax.typeof(array).sharding.spec[2:]]
        array = jax.sharding.reshard(array, PartitionSpec(self.mapped, self.samples, *rest))
        folded = PartitionSpec(self.mapped + self.samples, *rest)
        return jnp.reshape(array, (-1, *array.shape[2:]), out_sharding=folded)

    def unfold(self, array: Array) -> Array:
        """The inverse of `fold`, to [N, B, …]."""
        if not self.mapped:
            return array.reshape(-1, self.axis_size, *array.shape[1:]).swapaxes(0, 1)
        rest = jax.typeof(array).sharding.spec[1:]
        unfolded = PartitionSpec(self.mapped, self.samples, *rest)
        return jnp.reshape(array, (self.axis_size, -1, *array.shape[1:]), out_sharding=unfolded)


def reshard_like(cotangent: Array, value: Array) -> Array:
    """The cotangent with the sharding of its value, which Explicit axes make part of its type."""
    sharding = jax.typeof(value).sharding
    return jax.sharding.reshard(cotangent, sharding.spec) if sharding.mesh.explicit_axes else cotangent


@dataclasses.dataclass(frozen=True)
class OperandSpecs:
    """The partition specs of all arrays of a call.

    Groups are split with their channels where they divide evenly. Where several devices hold channels of one group,
    each uses that group's filter. Where neither divides the other, the channels are not split.

    Args:
      batch: mesh axes that split the samples.
      channel: mesh axes that split the channels.
      channel_devices: how many devices split the channels.
      share_groups: whether several devices hold channels of one group.
    """

    batch: tuple[str, ...]
    channel: tuple[str, ...]
    channel_devices: int
    share_groups: bool

    @classmethod
    def choose(cls, groups: int, x_spec: Sequence[Any], mesh_shape: Mapping[str, int]) -> "OperandSpecs":
        """The specs for x sharded so, on a mesh of this shape."""
        entries = [*x_spec, None, None, None, None]
        batch, channel = (_as_tuple(entries[AXES["x"].index(axis)]) for axis in ("batch", "channel"))
        devices = math.prod(mesh_shape[axis] for axis in channel)
        if groups % devices and devices % groups:
            channel, devices = (), 1
        return cls(batch, channel, devices, share_groups=groups % devices != 0)

    def of(self, names: Names) -> tuple[PartitionSpec, ...]:
        """One spec per array."""
        channel = self.channel or None
        mesh_axes = {
            "batch": self.batch or None,
            "channel": channel,
            "group": None if self.share_groups else channel,
        }
        return tuple(PartitionSpec(*map(mesh_axes.get, AXES[name])) for name in names)

    def first_group(self, groups: int) -> Array | int:
        """The group of this device's channels, where devices share groups."""
        return 0 if groups == 1 else jax.lax.axis_index(self.channel) // (self.channel_devices // groups)


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _without(entry: Any, axes: Collection[str]) -> tuple[str, ...]:
    """The mesh axes of an entry of a `PartitionSpec`, except `axes`."""
    return tuple(axis for axis in _as_tuple(entry) if axis not in axes)


def _propagation_rule(operands: Names, results: Names) -> str:
    """Shardy's rule: samples, channels and groups correspond across arrays, no other axes do."""
    free = (f"free{n}" for n in range(100))

    def axes(name: Name) -> str:
        return " ".join(axis if axis in ("batch", "channel", "group") else next(free) for axis in AXES[name])

    return ", ".join(map(axes, operands)) + " -> " + ", ".join(map(axes, results))
