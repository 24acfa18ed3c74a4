"""How the operator splits over a device mesh: by samples and by channels, never by pixels.

XLA cannot look into a kernel, so left alone it would gather sharded inputs on every device. Here each device works on
its own samples and channels. The forward pass needs no collective; the backward pass needs one reduction, of the
spatial filter's cotangent over the devices that share its group's channels.

Under a mesh of Auto axes `custom_partitioning` tells XLA so, under Explicit axes `jax.shard_map` does, and inside a
user's own `jax.shard_map` there is nothing left to split. Where that leaves Auto axes, or a mesh has axes of both
types, arrays are gathered over the Auto ones. `jax.vmap` folds its axis into the batch.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels.ops.spec import accumulator_dtype

# Arrays go by one letter here: x, y and their cotangents are "x", the spatial filter is "s", the channel filter "c".
BATCH_AXIS = 0
GROUP_AXIS = 4  # of [B, Ho, Wo, S², G, T]
RANKS = {"x": 4, "s": 6, "c": 4}


@functools.cache
def split(function: Callable[..., tuple[Array, ...]], statics: tuple, operands: str, results: str) -> Callable:
    """`function(*statics, *arrays) -> tuple of arrays`, run on every device's share of the arrays.

    Args:
      function: computes the operator or its cotangents on one device; looked up by identity, so a module's function.
      statics: its leading arguments, hashable.
      operands: names of the arrays it takes, such as "xsc": x [B, H, W, C], s [B, Ho, Wo, S², G, T], c [B, S², T, C].
      results: names of the arrays it returns.
    """

    @jax.custom_batching.custom_vmap
    def over_mesh(*arrays: Array) -> tuple[Array, ...]:
        x = jax.typeof(arrays[0]).sharding
        mesh = x.mesh
        if not mesh.explicit_axes and not (mesh.manual_axes and mesh.auto_axes):
            return over_auto_axes(*arrays)
        shares = Shares.choose(operands, [array.shape for array in arrays], x.spec, mesh.shape)
        specs = shares.specs(operands), shares.specs(results)
        local = functools.partial(on_device, shares)
        if mesh.explicit_axes:
            arrays = tuple(jax.sharding.reshard(array, spec) for array, spec in zip(arrays, specs[0], strict=True))
        # What varies over a user's manual axes must be known after it too.
        check_vma = bool(mesh.manual_axes)
        return jax.shard_map(local, in_specs=specs[0], out_specs=specs[1], check_vma=check_vma)(*arrays)

    @over_mesh.def_vmap
    def fold_into_batch(axis_size: int, batched: Sequence[bool], *arrays: Array):
        specs = [
            PartitionSpec(*([] if is_batched else [None]), *jax.typeof(array).sharding.spec)
            for array, is_batched in zip(arrays, batched, strict=True)
        ]
        # The samples stay the major axis, so that their shards stay whole, unless it is the mapped axis that is split.
        mapped = next((axes for spec in specs if (axes := _as_tuple(spec[0]))), ())
        samples = _as_tuple(specs[0][1])

        def fold(array: Array, is_batched: bool) -> Array:
            array = array if is_batched else jnp.broadcast_to(array, (axis_size, *array.shape))
            if not mapped:
                array = array.swapaxes(0, 1)
                return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
            rest = [_without(entry, samples) for entry in jax.typeof(array).sharding.spec[2:]]
            array = jax.sharding.reshard(array, PartitionSpec(mapped, samples, *rest))
            return jnp.reshape(array, (-1, *array.shape[2:]), out_sharding=PartitionSpec(mapped + samples, *rest))

        def unfold(array: Array) -> Array:
            if not mapped:
                return array.reshape(-1, axis_size, *array.shape[1:]).swapaxes(0, 1)
            rest = jax.typeof(array).sharding.spec[1:]
            split = PartitionSpec(mapped, samples, *rest)
            return jnp.reshape(array, (axis_size, -1, *array.shape[1:]), out_sharding=split)

        outputs = tuple(map(unfold, over_mesh(*map(fold, arrays, batched))))
        return outputs, (True,) * len(outputs)

    def partition(mesh, operand_shapes, result_shapes):
        x = operand_shapes[0].sharding
        if not isinstance(x, NamedSharding):
            # `jax.jit` under `jax.set_mesh` of arguments that lie on no mesh: JAX names none, and nothing is split.
            mesh = Mesh(sorted(x.device_set, key=lambda device: device.id), ("devices",))
            x = NamedSharding(mesh, PartitionSpec())
        shares = Shares.choose(operands, [operand.shape for operand in operand_shapes], (*x.spec,), mesh.shape)
        named = [tuple(NamedSharding(mesh, spec) for spec in shares.specs(names)) for names in (operands, results)]
        return mesh, functools.partial(on_device, shares), named[1], named[0]

    def on_device(shares: "Shares", *arrays: Array) -> tuple[Array, ...]:
        if "s" not in operands or not shares.share_groups:
            return function(*statics, *arrays)
        at, spatial = operands.index("s"), arrays[operands.index("s")]
        wide = accumulator_dtype(spatial)
        group = shares.first_group(spatial.shape[GROUP_AXIS])
        own = jax.lax.dynamic_slice_in_dim(spatial, group, 1, GROUP_AXIS)
        if "s" in results:
            own = own.astype(wide)  # so that its cotangent is rounded once, after the sum
        outputs = list(function(*statics, *arrays[:at], own, *arrays[at + 1 :]))
        if "s" in results:
            at = results.index("s")
            mine = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(spatial.shape, wide), outputs[at], group, GROUP_AXIS)
            outputs[at] = jax.lax.psum(mine, shares.channel).astype(spatial.dtype)
        return tuple(outputs)

    over_auto_axes = custom_partitioning(functools.partial(function, *statics))
    over_auto_axes.def_partition(partition, sharding_rule=_propagation_rule(operands, results))
    return over_mesh


def placed_like(cotangent: Array, value: Array) -> Array:
    """The cotangent on the devices of its value: over Explicit axes they are part of its type."""
    sharding = jax.typeof(value).sharding
    return jax.sharding.reshard(cotangent, sharding.spec) if sharding.mesh.explicit_axes else cotangent


@dataclasses.dataclass(frozen=True)
class Shares:
    """The mesh axes that split the samples and the channels.

    Groups split with their channels where they divide evenly. Where several devices hold channels of one group, each
    uses that group's filter. Where neither divides the other, the channels are not split.
    """

    batch: tuple[str, ...]
    channel: tuple[str, ...]
    channel_devices: int
    share_groups: bool

    @classmethod
    def choose(
        cls, operands: str, shapes: Sequence[tuple[int, ...]], x_spec: Sequence[Any], mesh_shape: Mapping[str, int]
    ) -> "Shares":
        entries = [*x_spec, None, None, None, None]
        batch, channel = (_as_tuple(entries[axis]) for axis in (0, 3))
        groups = shapes[operands.index("s")][GROUP_AXIS] if "s" in operands else 1
        devices = math.prod(mesh_shape[axis] for axis in channel)
        if groups % devices and devices % groups:
            channel, devices = (), 1
        return cls(batch, channel, devices, share_groups=groups % devices != 0)

    def specs(self, names: str) -> tuple[PartitionSpec, ...]:
        batch, channel = self.batch or None, self.channel or None
        group = None if self.share_groups else channel
        by_name = {
            "x": PartitionSpec(batch, None, None, channel),
            "s": PartitionSpec(batch, None, None, None, group, None),
            "c": PartitionSpec(batch, None, None, channel),
        }
        return tuple(by_name[name] for name in names)

    def first_group(self, groups: int) -> Array | int:
        """Which group this device's channels belong to, where devices share groups."""
        return 0 if groups == 1 else jax.lax.axis_index(self.channel) // (self.channel_devices // groups)


def _as_tuple(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _without(entry: Any, axes: Collection[str]) -> tuple[str, ...]:
    """What else than `axes` an entry of a `PartitionSpec` names."""
    return tuple(axis for axis in _as_tuple(entry) if axis not in axes)


def _propagation_rule(operands: str, results: str) -> str:
    """Which axes belong together: samples, channels and groups, each with their like; all else is alone."""
    fresh = (f"free{n}" for n in range(100))

    def axes(name: str) -> str:
        names = [next(fresh) for _ in range(RANKS[name])]
        names[BATCH_AXIS] = "batch"
        if name == "s":
            names[GROUP_AXIS] = "group"
        else:
            names[-1] = "channel"
        return " ".join(names)

    return ", ".join(map(axes, operands)) + " -> " + ", ".join(map(axes, results))
