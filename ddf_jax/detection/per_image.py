"""Functions of each image of a batch, which a mesh may split by its images."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import Array
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def per_image(function: Callable[..., Any], *arrays: Any, shared: Any = ()) -> Any:
    """`function(*arrays, shared)`, whose results for an image depend on that image alone.

    Each device computes the images that it holds. XLA by itself gathers them where it meets loops and indices that
    depend on values: it would do the work of all devices on every one. There is no derivative.

    Args:
      function: of a batch; its results must have as many images as its arrays. It closes over no array.
      *arrays: trees of arrays with the images as their first axis.
      shared: a tree of arrays that all images share.
    """
    function = jax.jit(function, inline=True)  # traced once, for the shapes of its results and for their values
    arrays, shared = jax.lax.stop_gradient((arrays, shared))
    leaves, structure = jax.tree.flatten((arrays, shared))
    split = [True] * len(jax.tree.leaves(arrays)) + [False] * len(jax.tree.leaves(shared))
    whole = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (arrays, shared))  # on no mesh
    results = jax.eval_shape(lambda arrays, shared: function(*arrays, shared), *whole)
    shapes, result_structure = jax.tree.flatten(results)

    def flat(*leaves: Array) -> tuple[Array, ...]:
        arrays, shared = jax.tree.unflatten(structure, leaves)
        return tuple(jax.tree.leaves(function(*arrays, shared)))

    mesh = jax.typeof(leaves[0]).sharding.mesh
    if mesh.explicit_axes:
        images = jax.typeof(leaves[0]).sharding.spec[:1]
        specs = _specs(images, split)
        leaves = [
            jax.sharding.reshard(leaf, NamedSharding(mesh, spec)) for leaf, spec in zip(leaves, specs, strict=True)
        ]
        out_specs = tuple(PartitionSpec(*images) for _ in shapes)
        over = None if jax.sharding.get_abstract_mesh() == mesh else mesh  # the arrays' own, without `jax.set_mesh`
        found = jax.shard_map(flat, mesh=over, in_specs=specs, out_specs=out_specs, check_vma=False)(*leaves)
    else:
        found = _over_auto_axes(flat, leaves, shapes, split)
    return jax.tree.unflatten(result_structure, found)


def _over_auto_axes(
    flat: Callable[..., tuple[Array, ...]], leaves: Sequence[Array], shapes: Sequence[Any], split: Sequence[bool]
) -> tuple[Array, ...]:
    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        specs = [operand.sharding.spec[:1] for operand, of_images in zip(operands, split, strict=True) if of_images]
        images = next((spec for spec in specs if spec and spec[0] is not None), ())
        in_shardings, out_shardings = (
            tuple(NamedSharding(mesh, spec) for spec in _specs(images, kinds))
            for kinds in (split, [True] * len(results))
        )
        return mesh, flat, out_shardings, in_shardings

    free = (f"free{n}" for n in itertools.count())
    axes = [
        " ".join(["image"] * of_images + [next(free) for _ in leaf.shape[of_images:]])
        for leaf, of_images in [*zip(leaves, split, strict=True), *((shape, True) for shape in shapes)]
    ]
    call = custom_partitioning(flat)
    call.def_partition(partition, sharding_rule=f"{', '.join(axes[: len(leaves)])} -> {', '.join(axes[len(leaves) :])}")
    return call(*leaves)


def _specs(images: Sequence[Any], split: Sequence[bool]) -> tuple[PartitionSpec, ...]:
    return tuple(PartitionSpec(*images) if of_images else PartitionSpec() for of_images in split)
