"""Eight devices, and what they send each other."""

import collections
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
MODES = ("auto", "explicit", "no context")


@contextlib.contextmanager
def eight_devices(mode: str) -> Iterator[Mesh]:
    """A mesh of 8 "data" devices, set as the context's unless `mode` is "no context"."""
    axis_type = AxisType.Explicit if mode == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
    with contextlib.nullcontext() if mode == "no context" else jax.set_mesh(mesh):
        yield mesh


def on_eight(mode: str, function: Callable[..., Any], *arrays: Any, shared: Any = ()) -> tuple[Any, dict[str, int]]:
    """The results of `function(*arrays, shared)` with images on eight devices, and the collectives by name.

    Args:
      mode: of the mesh, one of `MODES`.
      function: to compile.
      *arrays: trees with the images, a multiple of 8, as first axis.
      shared: a tree that all devices have.
    """
    with eight_devices(mode) as mesh:
        arrays = jax.device_put(arrays, NamedSharding(mesh, P("data")))
        shared = jax.device_put(shared, NamedSharding(mesh, P()))
        compiled = jax.jit(function).lower(*arrays, shared).compile()
        results = jax.tree.map(np.asarray, compiled(*arrays, shared))
    return results, dict(collections.Counter(COLLECTIVE.findall(str(compiled.as_text()))))


def on_one(function: Callable[..., Any], *arrays: Any, shared: Any = ()) -> Any:
    """The same on one device."""
    return jax.tree.map(np.asarray, jax.jit(function)(*arrays, shared))
