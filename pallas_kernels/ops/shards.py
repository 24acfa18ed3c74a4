"""The form on the shards of one device, with what devices exchange for it: halos of rows, and sums."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from pallas_kernels.ops.form import Form
from pallas_kernels.ops.halo import halo_exchange
from pallas_kernels.ops.operand_specs import AXES, OperandSpecs
from pallas_kernels.ops.spec import accumulator_dtype

_GROUP_AXIS = AXES["spatial"].index("group")

# (form on one device, *arrays) -> results
OnDevice = Callable[..., Sequence[Array]]


def form_on_shards(
    on_device: OnDevice, form: Form, mapped: int, specs: OperandSpecs | None, *arrays: Array
) -> tuple[Array, ...]:
    """The form on the shards of one device; sums dspatial over the devices that share groups."""
    axis = mapped + _GROUP_AXIS

    def evaluate(form: Form, *arrays: Array) -> tuple[Array, ...]:
        if specs is None or specs.height_devices == 1:
            return _on_samples(on_device, mapped, form, *arrays)
        return _on_rows(functools.partial(_on_samples, on_device, mapped), specs, form, *arrays)

    if specs is None or not specs.share_groups:
        groups = form.groups if specs is None else form.groups // specs.group_devices
        return evaluate(dataclasses.replace(form, groups=groups), *arrays)
    group = specs.first_group(form.groups)
    arrays = tuple(
        lax.dynamic_slice_in_dim(array, group, 1, axis) if name == "spatial" else array
        for name, array in zip(form.arrays, arrays, strict=True)
    )
    # A result is rounded once, after the sum.
    wide = accumulator_dtype(*arrays)
    dtypes = tuple(wide if name == "spatial" else dtype for name, dtype in zip(form.results, form.dtypes, strict=True))
    outputs = list(evaluate(dataclasses.replace(form, groups=1, dtypes=dtypes), *arrays))
    if "spatial" in form.results:
        at = form.results.index("spatial")
        mine = outputs[at]
        shape = (*mine.shape[:axis], form.groups, *mine.shape[axis + 1 :])
        every = lax.dynamic_update_slice_in_dim(jnp.zeros(shape, wide), mine, group, axis)
        outputs[at] = lax.psum(every, specs.channel).astype(form.dtypes[at])
    return tuple(outputs)


def _on_rows(evaluate: OnDevice, specs: OperandSpecs, form: Form, *arrays: Array) -> tuple[Array, ...]:
    """A form whose rows are split, as the form of a device's rows.

    x comes with its halo. The cotangent of x is summed over halos, that of the channel filter over the devices.
    """
    (above, below), (height, width) = form.spec.halo_rows, form.size
    own, wide = height // specs.height_devices, accumulator_dtype(*arrays)

    def exchange(x: Array) -> Array:
        return halo_exchange(x, specs.height, above, below)

    # A result is rounded once, after the sum.
    summed = {"channel", "x"} if above or below else {"channel"}
    dtypes = tuple(wide if name in summed else dtype for name, dtype in zip(form.results, form.dtypes, strict=True))
    spec = dataclasses.replace(form.spec, padding=((0, 0), form.spec.padding[1]))
    rows = dataclasses.replace(form, spec=spec, size=(above + own + below, width), dtypes=dtypes)
    given = (exchange(array) if name == "x" else array for name, array in zip(form.arrays, arrays, strict=True))
    outputs = dict(zip(form.results, evaluate(rows, *given), strict=True))
    if "x" in outputs:
        extended = outputs["x"]
        like_x = lax.slice_in_dim(extended, 0, own, axis=-3)
        [outputs["x"]] = jax.linear_transpose(exchange, like_x)(extended)
    if "channel" in outputs:
        outputs["channel"] = lax.psum(outputs["channel"], specs.height)
    return tuple(outputs[name].astype(dtype) for name, dtype in zip(form.results, form.dtypes, strict=True))


def _on_samples(on_device: OnDevice, mapped: int, form: Form, *arrays: Array) -> tuple[Array, ...]:
    """A form with the mapped axes folded into the samples: on one device, where no other holds any."""
    if not mapped:
        return tuple(on_device(form, *arrays))
    sizes, end = arrays[0].shape[: mapped + 1], mapped + 1
    outputs = on_device(form, *(array.reshape(math.prod(sizes), *array.shape[end:]) for array in arrays))
    return tuple(output.reshape(*sizes, *output.shape[1:]) for output in outputs)
