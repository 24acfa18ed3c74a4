import pickle

import jax
import numpy as np

from ddf_jax.data.memory import ReusedMemory

FLOAT = np.dtype(np.float32)


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_given_out_again_when_nothing_refers_to_it():
    memory = ReusedMemory()
    first, second = memory.empty((4, 3), FLOAT), memory.empty((4, 3), FLOAT)
    assert (first.shape, first.dtype) == ((4, 3), FLOAT)
    assert not np.shares_memory(first, second)
    assert address(first) % 64 == address(second) % 64 == 0
    freed = address(first)
    row = first[1:, ::2].T  # a view of a view keeps it
    del first
    assert address(memory.empty((3, 4), FLOAT)) not in (freed, address(second))
    del row
    assert address(memory.empty((6,), np.dtype(np.float64))) == freed
    assert address(memory.empty((13,), FLOAT)) != freed


def test_memory_is_kept_for_an_array_on_a_device():
    memory = ReusedMemory()
    host = memory.empty((1024,), FLOAT)
    host[:] = 1
    device = jax.device_put(host, jax.devices()[0])
    del host
    memory.empty((1024,), FLOAT)[:] = 2
    assert (np.asarray(device) == 1).all()


def test_it_travels_to_other_processes_without_its_arrays():
    memory = ReusedMemory()
    array = memory.empty((1 << 20,), FLOAT)
    assert len(pickle.dumps(memory)) < 200
    assert array.nbytes == 4 << 20
