"""Arrays in NumPy's file format, from bytes of unknown origin: nothing is unpickled, and no memory beyond them."""

import io
import math

import numpy as np

from ddf_jax.data.samples import CorruptImageError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_npy(data: bytes) -> bool:
    """Whether the bytes begin as an NPY file does."""
    return data.startswith(np.lib.format.MAGIC_PREFIX)


def read_npy(data: bytes) -> np.ndarray:
    """An array of real numbers [H, W], or [H, W, 1] without its last axis.

    Raises:
        CorruptImageError: the bytes are of another array or cut short; the message is the reason.
    """
    file = io.BytesIO(data)
    try:
        shape, fortran_order, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise CorruptImageError(f"an NPY file with an unknown header: {error}") from error
    height_width = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
    if dtype.kind not in "iuf" or len(height_width) != 2 or not all(height_width):
        raise CorruptImageError(f"an array of {dtype} {shape}, not of real numbers [H, W]")
    if len(data) - file.tell() < math.prod(shape) * dtype.itemsize:
        raise CorruptImageError(f"an NPY file that ends before its array of {dtype} {shape}")
    array = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    array = array.reshape(height_width, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="))
