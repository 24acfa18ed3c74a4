"""Memory for batches, which are large: the system zeroes fresh memory, a tenth of the time that a batch takes."""

import math
import sys
import threading
from typing import Any

import numpy as np

_MOST = 32  # arrays that are kept
_ALIGNMENT = 64  # bytes, with which JAX puts an array on a CPU device without a copy


class ReusedMemory:
    """Gives out arrays, and the memory of arrays that nobody refers to any more, by a view or otherwise, again.

    Threads may share it. A copy of it, as in another process, has memory of its own.
    """

    def __init__(self) -> None:
        self._kept = [np.empty(0, np.uint8)]  # the first is never given out: what refers to it refers to each
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return ReusedMemory, ()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An array whose values are arbitrary."""
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            references = [sys.getrefcount(memory) for memory in self._kept]
            for memory, count in zip(self._kept, references, strict=True):
                if memory.nbytes == size + _ALIGNMENT and count == references[0]:
                    break
            else:
                memory = np.empty(size + _ALIGNMENT, np.uint8)
                if len(self._kept) < _MOST:
                    self._kept.append(memory)
            start = -memory.ctypes.data % _ALIGNMENT
            return memory[start : start + size].view(dtype).reshape(shape)
