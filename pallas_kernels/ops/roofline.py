"""Rooflines: lower bounds of a kernel's time, from the bytes it must move and the instructions it must issue."""

import math
from typing import Any

from pallas_kernels.ops.arg_specs import ArgSpec, DTypes
from pallas_kernels.ops.config import KernelName


def minimum_bytes(arg: ArgSpec, dtype: DTypes, kernel: KernelName) -> int:
    """The bytes of a kernel's inputs and outputs, each moved once."""
    return read_bytes(arg, dtype, kernel) + written_bytes(arg, dtype, kernel)


def read_bytes(arg: ArgSpec, dtype: DTypes, kernel: KernelName) -> int:
    """The bytes of a kernel's inputs."""
    x, spatial, channel = arg.structs(dtype)
    y = arg.output_struct(dtype)  # and dy
    factors = (spatial, channel) if arg.spec.combine == "mul" else (None, None)
    arrays: dict[KernelName, tuple[Any, ...]] = {
        "fwd": (x, spatial, channel),
        "dx": (y, spatial, channel),
        "dspatial": (x, y, factors[1]),
        "dchannel": (x, y, factors[0]),
        "dfilters": (x, y, *factors),
    }
    return _num_bytes(arrays[kernel])


def written_bytes(arg: ArgSpec, dtype: DTypes, kernel: KernelName) -> int:
    """The bytes of a kernel's outputs."""
    x, spatial, channel = arg.structs(dtype)
    arrays: dict[KernelName, tuple[Any, ...]] = {
        "fwd": (arg.output_struct(dtype),),
        "dx": (x,),
        "dspatial": (spatial,),
        "dchannel": (channel,),
        "dfilters": (spatial, channel),
    }
    return _num_bytes(arrays[kernel])


def _num_bytes(arrays: tuple[Any, ...]) -> int:
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays if array is not None)


def memory_roofline_us(num_bytes: int, bandwidth: float) -> float:
    """Microseconds to move the bytes.

    Args:
      num_bytes: read and written.
      bandwidth: bytes per second.
    """
    return 1e6 * num_bytes / bandwidth


def issue_roofline_us(instructions: float, issue_rate: float) -> float:
    """Microseconds to issue the instructions.

    Args:
      instructions: of all lanes of all programs.
      issue_rate: instructions of one lane per second, over the device.
    """
    return 1e6 * instructions / issue_rate
