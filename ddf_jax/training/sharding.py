"""Which device holds which part of a run's variables: rules on their names.

A variable of the optimizer, such as a momentum, or of the averaged weights, lies where its parameter does, whose name
its own ends with.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddf_jax.training.leaves import leaf_name, leaf_names

# Of a block `{block}` whose spatial operator keeps channels apart: the dimension of C, from the last one.
# The operator, `norm1` and `norm2` then need no exchange, and each product over C one sum.
TENSOR_RULES: tuple[tuple[str, int], ...] = (
    (r"conv1\.kernel", -1),
    (r"norm1\.\w+", -1),
    (r"conv2\.spatial_branch\.(conv|reduce)\.kernel", -2),
    (r"conv2\.channel_branch\.squeeze\.kernel", -2),
    (r"norm2\.\w+", -1),
    (r"conv3\.kernel", -2),
)
_BLOCK = re.compile(r"(.*\bstages\.\d+\.\d+)\.conv2\.")


def shardings(variables: Any, mesh: Mesh, *, fsdp: bool = True) -> Any:
    """A sharding for each array of nested variables.

    Over `tensor` the channels of blocks whose spatial operator keeps them apart (`TENSOR_RULES`); over `fsdp` the
    largest other dimension that its size divides, of equal ones the last. What no size divides is on every device, and
    so are random keys and counters.

    Args:
        variables: arrays or their shapes.
        mesh: of `make_mesh`.
        fsdp: False: as where the parameters are used, whole but for `tensor`.
    """
    blocks = per_channel_blocks(leaf_names(variables)) if mesh.shape["tensor"] > 1 else ()

    def place(path: Any, leaf: Any) -> NamedSharding:
        over: list[str | None] = [None] * leaf.ndim
        dim = _tensor_dim(leaf_name(path), blocks)
        if dim is not None and -dim <= leaf.ndim and leaf.shape[dim] % mesh.shape["tensor"] == 0:
            over[dim] = "tensor"
        size = mesh.shape["fsdp"]
        free = [axis for axis, taken in enumerate(over) if taken is None and leaf.shape[axis] % size == 0]
        if fsdp and size > 1 and free and leaf.size and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            over[max(free, key=lambda axis: (leaf.shape[axis], axis))] = "fsdp"
        while over and over[-1] is None:
            over.pop()
        return NamedSharding(mesh, PartitionSpec(*over))

    return jax.tree.map_with_path(place, variables)


def per_channel_blocks(names: Sequence[str]) -> set[str]:
    """The bottlenecks whose spatial operator mixes no channels: all its parameters make filters.

    >>> sorted(per_channel_blocks(["stages.0.0.conv2.spatial_branch.conv.kernel", "stages.0.0.conv3.kernel"]))
    ['stages.0.0']
    """
    in_conv2, bottlenecks = {}, set()
    for name in names:
        if found := _BLOCK.match(name):
            in_conv2.setdefault(found[1], []).append(name[found.end() :])
        elif name.endswith(".conv3.kernel"):
            bottlenecks.add(name.removesuffix(".conv3.kernel"))
    return {
        block
        for block, inner in in_conv2.items()
        if block in bottlenecks and all(re.match(r"(spatial|channel)_branch\.", name) for name in inner)
    }


def _tensor_dim(name: str, blocks: Collection[str]) -> int | None:
    for block in blocks:
        if name.startswith(f"{block}."):
            rest = name[len(block) + 1 :]
            return next((dim for rule, dim in TENSOR_RULES if re.fullmatch(rule, rest)), None)
    return None
