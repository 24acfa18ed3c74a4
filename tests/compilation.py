"""How tests compile: as fast as possible, and each program once for all workers, child processes and later runs."""

import os
import sys
from pathlib import Path
from typing import Any

import jax
from jax._src import lru_cache

# Most programs of the tests run once, for milliseconds. The level concerns code generation alone: XLA fuses, assigns
# memory and orders operations as always. Before JAX 0.11 there are two kinds of emitters for fusions: the default one
# compiles slowly and the other one fuses differently, so tests of fusions and of memory ask for the default.
FAST: dict[str, Any] = {"xla_backend_optimization_level": 0}
FUSED_AS_BY_DEFAULT: dict[str, Any] = {}  # compiler options
if jax.__version_info__ < (0, 12):
    # Reductions of seven axes write beyond the buffers of XLA's library for them, which crashes at times and at any
    # later place (github.com/jax-ml/jax/issues/39257). The operator has none, which a test sees to; other code may.
    FAST["xla_cpu_experimental_ynn_fusion_type"] = ""
if jax.__version_info__ < (0, 11):
    FAST["xla_cpu_use_fusion_emitters"] = False
    FUSED_AS_BY_DEFAULT["xla_cpu_use_fusion_emitters"] = True
FLAGS = [f"--{name}={str(value).lower()}" for name, value in FAST.items()]

OPTIONS = {
    "jax_traceback_in_locations_limit": 0,  # to write down where in the code an operation was made takes long
    "jax_compilation_cache_dir": str(Path(sys.prefix, "jax-cache", jax.__version__)),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def configure() -> None:
    """Configures this process and, through the environment, its children. Call it before the first compilation."""
    present = os.environ.get("XLA_FLAGS", "").split()
    os.environ["XLA_FLAGS"] = " ".join([*present, *(flag for flag in FLAGS if flag not in present)])
    for option, value in OPTIONS.items():
        if option.upper() not in os.environ:
            os.environ[option.upper()] = str(value)
            jax.config.update(option, value)
    lru_cache.LRUCache.put = _put


def optimized_environment() -> dict[str, str]:
    """The environment of a child process that compiles as a user's does."""
    flags = (flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag not in FLAGS)
    return os.environ | {"XLA_FLAGS": " ".join(flags)}


def _put(self: lru_cache.LRUCache, key: str, value: bytes) -> None:
    """Writes an entry whole. JAX writes in place: a concurrent reader or a killed writer would leave half a program."""
    part = Path(str(self.path), f"{key}.{os.getpid()}")
    part.write_bytes(value)
    part.replace(part.with_name(f"{key}{lru_cache._CACHE_SUFFIX}"))
