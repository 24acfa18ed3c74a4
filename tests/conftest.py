"""One configuration for every test: eight simulated devices, strict promotion, ranks that must be spelled out."""

import gc
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests import compilation

compilation.configure()
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Ctrl-C as at a terminal, here and in the processes of tests: a shell lets what it runs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

MAPPINGS = Path("/proc/self/maps")
MOST_MAPPINGS = 20_000  # Linux gives a process 65,530, a compiled program takes several, and one too many is a crash


ENDED = itertools.count(1)


def pytest_collection_finish() -> None:
    """What was imported stays, and tracing makes a million small objects a second: searching them all for cycles, as
    often as Python does by default, takes a tenth of the suite's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(autouse=True)
def few_compiled_programs() -> Iterator[None]:
    """Forgets what was compiled before it fills the address space. Reading the mappings takes long: not each time."""
    yield
    if next(ENDED) % 10 == 0 and MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
