"""Images whose rows are split over devices: functions of windows, on the rows of each device and its neighbours'."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from ddf_jax.errors import UserError
from pallas_kernels import halo_exchange

Padding = tuple[int, int]
"""Rows above and below."""

_SPLIT: contextvars.ContextVar[NamedSharding | None] = contextvars.ContextVar("split", default=None)


@contextlib.contextmanager
def height_split(sharding: NamedSharding | None) -> Iterator[None]:
    """Within it, convolutions and pooling compute on each device's rows of images [B, H, W, C] that are sharded over H.

    Devices exchange the rows that their windows share (`pallas_kernels.halo_exchange`). Results and gradients are those
    of whole images. All other operations XLA splits by itself, and `pallas_kernels.dynamic_filter` needs no context.
    It must be entered within the function that is compiled: `jax.jit` does not see it.

    Args:
        sharding: of the images, such as ``NamedSharding(mesh, PartitionSpec("data", "height"))``. With None, or one
            device along the height, nothing changes.

    Raises:
        UserError: by the functions within it, for images whose rows cannot be split: their number must be a multiple of
            the number of devices times the stride.

    >>> import jax, jax.numpy as jnp
    >>> from jax.sharding import NamedSharding, PartitionSpec
    >>> from ddf_jax.functional import max_pool
    >>> mesh = jax.make_mesh((1, jax.device_count()), ("data", "height"))
    >>> sharding = NamedSharding(mesh, PartitionSpec("data", "height"))
    >>> @jax.jit
    ... def pooled(images):
    ...     with height_split(sharding):
    ...         return max_pool(images)
    >>> pooled(jax.device_put(jnp.ones((2, 64, 64, 3)), sharding)).shape
    (2, 32, 32, 3)
    """
    token = _SPLIT.set(sharding if sharding is not None and _split_of(sharding)[1] > 1 else None)
    try:
        yield
    finally:
        _SPLIT.reset(token)


def on_rows(
    function: Callable[..., Array],
    x: Array,
    *shared: Array,
    padding: Padding = (0, 0),
    span: int = 0,
    stride: int = 1,
    fill: float | None = 0.0,
    per_sample: bool = False,
) -> Array:
    """`function(x, *shared, padding)`, a function of windows of x; within `height_split` of each device's rows of it.

    Args:
        function: called there with the rows of a device, its halo, and a padding of (0, 0). It gives one row for each
            `stride` of a device's rows.
        x: [B, H, W, C].
        shared: other arrays that are not split over H, such as weights.
        padding: of whole images.
        span: rows from the first to the last one of a window.
        stride: rows between windows.
        fill: value of the padding; None: the image's outermost row.
        per_sample: whether the other arrays are [B, …], split over the batch as x is.

    Raises:
        UserError: the rows cannot be split.
    """
    sharding = _SPLIT.get()
    if sharding is None:
        return function(x, *shared, padding)
    axes, devices = _split_of(sharding)
    height, (above, below) = x.shape[1], padding
    if height % (devices * stride):
        raise UserError(
            f"The rows of an image that is split over devices must be a multiple of their number times the stride, "
            f"{devices} · {stride} = {devices * stride}, got H = {height} for {x.shape=}. Resize or pad the images so "
            "that every feature map of the network has such a height, or split them over fewer devices."
        )
    if (height + above + below - span - 1) // stride + 1 != height // stride:
        raise UserError(
            f"A window on images that are split over devices must give H / stride = {height // stride} rows, got "
            f"{padding=} for a window of {span + 1} rows and {stride=}. Choose a padding that keeps the size."
        )

    def of_device(x: Array, *shared: Array) -> Array:
        # The last window of a device starts `stride` rows before the end of its rows.
        x = halo_exchange(x, axes, above, max(0, span - above - (stride - 1)), fill=fill)
        # One sum of a cotangent over the devices, outside of any loop of the function.
        shared = tuple(jax.lax.pcast(array, sharers, to="varying") for array in shared)
        return function(x, *shared, (0, 0))

    batch = _names(sharding.spec[0])
    sharers = axes if per_sample else (*batch, *axes)
    rows, whole = PartitionSpec(batch, axes), PartitionSpec(batch if per_sample else None)
    over_mesh = jax.shard_map(
        of_device,
        mesh=sharding.mesh,
        in_specs=(rows, *(whole for _ in shared)),
        out_specs=rows,
        axis_names={*batch, *axes},  # what else the mesh splits is left to XLA
    )
    return over_mesh(x, *shared)


def _split_of(sharding: NamedSharding) -> tuple[tuple[str, ...], int]:
    """The mesh axes that split H, and the number of devices along them."""
    axes = _names(sharding.spec[1] if len(sharding.spec) > 1 else None)
    return axes, math.prod(sharding.mesh.shape[axis] for axis in axes)


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of an entry of a partition spec."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
