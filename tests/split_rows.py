"""What a function computes of images whose rows are split over devices: as of whole ones, with which collectives."""

import collections
import contextlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

_COLLECTIVE = re.compile(r"= (.+?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
_SHAPE = re.compile(r"\b[a-z]+\d+\[([\d,]*)\]")


def mesh_of(height: int, data: int = 1, *, explicit: bool = False) -> Mesh:
    """The first devices as a mesh with the axes `data` and `height`."""
    kinds = (AxisType.Explicit if explicit else AxisType.Auto,) * 2
    return jax.make_mesh((data, height), ("data", "height"), axis_types=kinds, devices=jax.devices()[: data * height])


class Collectives(NamedTuple):
    """The collectives of a compiled program: how many of each kind, and each one's kind and shapes in XLA's text."""

    counts: dict[str, int]
    found: list[tuple[str, str]]

    def shapes_of(self, kind: str) -> list[tuple[int, ...]]:
        """The shapes of the results of all collectives of a kind."""
        texts = [shape for name, shapes in self.found if name == kind for shape in _SHAPE.findall(shapes)]
        return [tuple(map(int, filter(None, text.split(",")))) for text in texts]


def collectives(compiled: Any) -> Collectives:
    found = [(kind, shapes) for shapes, kind in _COLLECTIVE.findall(compiled.as_text())]
    return Collectives(dict(collections.Counter(kind for kind, _ in found)), found)


def check_as_whole(
    function: Callable[..., Any],
    mesh: Mesh,
    arrays: Sequence[Any],
    specs: Sequence[P],
    *,
    within: Callable[[], Any] = contextlib.nullcontext,
    tolerance: float = 1e-12,
) -> tuple[Collectives, Collectives]:
    """Asserts that results and cotangents are those of one device, and that the result is split as the first array.

    Args:
        function: of arrays, with one result like the first array.
        mesh: the devices.
        arrays: float64.
        specs: of the arrays.
        within: makes the context in which the function is traced.
        tolerance: of the largest value.

    Returns:
        The collectives of the forward pass, and of forward and backward.
    """

    def both(*arrays: Any) -> tuple[Any, Any]:
        y, pull_back = jax.vjp(function, *arrays)
        return y, pull_back(jnp.sin(y) + 1)

    with jax.enable_x64(True):
        arrays = [jnp.asarray(array, jnp.float64) for array in arrays]
        expected = jax.device_get(jax.jit(both)(*arrays))
        explicit = AxisType.Explicit in mesh.axis_types
        with jax.set_mesh(mesh) if explicit else contextlib.nullcontext(), within():
            placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
            forward = jax.jit(lambda *a: function(*a)).lower(*placed).compile()
            program = jax.jit(lambda *a: both(*a)).lower(*placed).compile()
            y = forward(*placed)
            assert y.sharding.is_equivalent_to(NamedSharding(mesh, specs[0]), y.ndim), y.sharding
            found = jax.device_get(program(*placed))
    for value, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert value.dtype == right.dtype == np.float64
        np.testing.assert_allclose(value, right, rtol=0, atol=tolerance * np.abs(right).max())
    np.testing.assert_allclose(y, expected[0], rtol=0, atol=tolerance * np.abs(expected[0]).max())
    return collectives(forward), collectives(program)
