"""Images whose rows are split over devices: each device gets the rows of its neighbours that its windows read."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.form import Form
from pallas_kernels.ops.spec import accumulator_dtype

_ROWS = -3  # the axis of H in [..., H, W, C]


def halo_exchange(x: Array, axis_name: str | tuple[str, ...], above: int, below: int, *, fill: float = 0.0) -> Array:
    """The rows of an image that a device holds, with the rows above and below them from the devices next to it.

    It is for functions under `jax.shard_map` whose windows reach beyond a device's rows. Each device sends its outermost
    rows to its neighbours (`jax.lax.ppermute`). Where a halo has more rows than a device, the devices beyond send theirs.

    Args:
      x: [..., H, W, C], the rows of this device, as many on each.
      axis_name: the mesh axis over which the rows are split, or several.
      above: number of rows above.
      below: number of rows below.
      fill: value of the rows beyond the image.

    Returns:
      [..., above + H + below, W, C].

    Derivatives: of any order. In reverse mode the cotangents of the halos are sent back and added.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(3, 2, 1, 1)  # three devices with two rows each
    >>> exchange = lambda x: halo_exchange(x, "height", 1, 0)
    >>> jax.vmap(exchange, axis_name="height")(x)[..., 0, 0].tolist()
    [[0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]
    """
    devices, rows = lax.axis_size(axis_name), x.shape[_ROWS]

    def received(hop: int, start: int, count: int) -> Array:
        """Rows of the device `hop` places before this one."""
        part = lax.slice_in_dim(x, start, start + count, axis=_ROWS)
        if abs(hop) >= devices:
            return jnp.full_like(part, fill)
        part = lax.ppermute(part, axis_name, [(i, i + hop) for i in range(devices) if 0 <= i + hop < devices])
        if fill == 0:  # as `ppermute` gives where nothing is sent
            return part
        source = lax.axis_index(axis_name) - hop
        return jnp.where((source >= 0) & (source < devices), part, fill)

    def hops(width: int) -> list[tuple[int, int]]:
        """The devices that a halo of this width reaches, with the rows of each."""
        return [(1 + start // rows, min(rows, width - start)) for start in range(0, width, rows)]

    before = [received(hop, rows - count, count) for hop, count in reversed(hops(above))]
    after = [received(-hop, 0, count) for hop, count in hops(below)]
    return jnp.concatenate([*before, x, *after], axis=_ROWS) if before or after else x


def form_on_rows(
    evaluate: Callable[..., Sequence[Array]], form: Form, axis_name: tuple[str, ...], devices: int, *arrays: Array
) -> tuple[Array, ...]:
    """A form whose rows are split over devices, as the form of one device's rows: x comes with its halo, the cotangent
    of x is summed over halos, and that of the channel filter over the devices.

    Args:
      evaluate: evaluates a form on the arrays of one device.
      form: of the whole images.
      axis_name: the mesh axes over which the rows are split.
      devices: how many devices those are.
      arrays: the rows of this device.
    """
    (above, below), (height, width) = form.spec.halo_rows, form.size
    wide = accumulator_dtype(*arrays)

    def exchange(x: Array) -> Array:
        return halo_exchange(x, axis_name, above, below)

    summed = {"channel", "x"} if above or below else {"channel"}
    rows = dataclasses.replace(
        form,
        spec=dataclasses.replace(form.spec, padding=((0, 0), form.spec.padding[1])),
        size=(above + height // devices + below, width),
        # A result is rounded once, after the sum.
        dtypes=tuple(wide if name in summed else d for name, d in zip(form.results, form.dtypes, strict=True)),
    )
    given = [exchange(array) if name == "x" else array for name, array in zip(form.arrays, arrays, strict=True)]
    outputs = dict(zip(form.results, evaluate(rows, *given), strict=True))
    if "channel" in outputs:
        outputs["channel"] = lax.psum(outputs["channel"], axis_name)
    if "x" in outputs:
        extended = outputs["x"]
        own = jnp.zeros_like(lax.slice_in_dim(extended, above, above + height // devices, axis=_ROWS))
        [outputs["x"]] = jax.linear_transpose(exchange, own)(extended)
    return tuple(outputs[name].astype(dtype) for name, dtype in zip(form.results, form.dtypes, strict=True))
