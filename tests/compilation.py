"""How tests compile: as fast as possible, and each program once for all workers, child processes and later runs."""

import os
import sys
from pathlib import Path

import jax
from jax._src import lru_cache

# Most programs of the tests run once, for milliseconds. The level concerns LLVM alone: XLA fuses, assigns memory and
# orders operations as always. A test of optimised code passes `OPTIMIZED` as its compiler options.
LEVEL = "--xla_backend_optimization_level=0"
OPTIMIZED = {"xla_backend_optimization_level": 3}

CACHE = {
    "jax_compilation_cache_dir": str(Path(sys.prefix, "jax-cache", jax.__version__)),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def configure() -> None:
    """Configures this process and, through the environment, its children. Call it before the first compilation."""
    if LEVEL not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LEVEL}".lstrip()
    for option, value in CACHE.items():
        if option.upper() not in os.environ:
            os.environ[option.upper()] = str(value)
            jax.config.update(option, value)
    lru_cache.LRUCache.put = _put


def optimized_environment() -> dict[str, str]:
    """The environment of a child process that compiles as a user's does."""
    return os.environ | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "").replace(LEVEL, "").strip()}


def _put(cache: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """Writes an entry whole. JAX writes in place: a concurrent reader or a killed writer would leave half a program."""
    part = Path(str(cache.path), f"{key}.{os.getpid()}")
    part.write_bytes(value)
    part.replace(part.with_name(f"{key}{lru_cache._CACHE_SUFFIX}"))
