"""Images whose rows are split over devices: each device gets the rows of its neighbours that its windows read."""

import jax.numpy as jnp
from jax import Array, lax

_ROWS = -3  # the axis of H in [..., H, W, C]


def halo_exchange(
    x: Array, axis_name: str | tuple[str, ...], above: int, below: int, *, fill: float | None = 0.0
) -> Array:
    """The rows of an image that a device holds, with the rows above and below them from the devices next to it.

    It is for functions within `jax.shard_map` whose windows reach beyond a device's rows. Each device sends its
    outermost rows to its neighbours (`jax.lax.ppermute`). Where a halo has more rows than a device, devices farther
    away send theirs, too.

    Args:
      x: [..., H, W, C], the rows of this device, as many on each.
      axis_name: the mesh axis over which the rows are split, or several.
      above: number of rows above.
      below: number of rows below.
      fill: value of the rows beyond the image; None: of its outermost row.

    Returns:
      [..., above + H + below, W, C].

    Raises:
      ValueError: without a value to fill with, a halo has more rows than a device.

    Derivatives: of any order. In reverse mode the cotangents of the halos are sent back and added.

    >>> import jax, jax.numpy as jnp
    >>> from jax.sharding import PartitionSpec
    >>> mesh = jax.make_mesh((1,), ("height",))
    >>> rows = jax.NamedSharding(mesh, PartitionSpec(None, "height"))
    >>> x = jax.device_put(jnp.array([1.0, 2.0]).reshape(1, 2, 1, 1), rows)
    >>> exchange = jax.shard_map(lambda x: halo_exchange(x, "height", 1, 1), mesh=mesh, out_specs=rows.spec)
    >>> exchange(x).ravel().tolist()
    [0.0, 1.0, 2.0, 0.0]
    """
    devices, rows = lax.axis_size(axis_name), x.shape[_ROWS]
    if fill is None and max(above, below) > rows:
        raise ValueError(f"With fill=None a halo must have at most a device's rows, {rows}, got {above=}, {below=}.")

    def received(hop: int, start: int, count: int) -> Array:
        """Rows of the device `hop` places before this one."""
        part = lax.slice_in_dim(x, start, start + count, axis=_ROWS)
        if abs(hop) >= devices and fill is not None:
            return jnp.full_like(part, fill)
        part = lax.ppermute(part, axis_name, [(i, i + hop) for i in range(devices) if 0 <= i + hop < devices])
        if fill == 0:  # as `ppermute` gives where nothing is sent
            return part
        source, outermost = lax.axis_index(axis_name) - hop, 0 if hop > 0 else rows - 1
        beyond = lax.slice_in_dim(x, outermost, outermost + 1, axis=_ROWS) if fill is None else fill
        return jnp.where((source >= 0) & (source < devices), part, beyond)

    def hops(width: int) -> list[tuple[int, int]]:
        """The devices that a halo of this width reaches, with the rows of each."""
        return [(1 + start // rows, min(rows, width - start)) for start in range(0, width, rows)]

    before = [received(hop, rows - count, count) for hop, count in reversed(hops(above))]
    after = [received(-hop, 0, count) for hop, count in hops(below)]
    return jnp.concatenate([*before, x, *after], axis=_ROWS) if before or after else x
