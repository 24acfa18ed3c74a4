"""Requirements of tests of ahead-of-time compilation for a GPU target; `make test` installs them where available."""

import importlib.util
import os
import sys
from pathlib import Path

import jax
import pytest

from tests.compilation import optimized_environment

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs: pip install triton")
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason=f"needs: pip install jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt=={jax.__version__}",
)

# Of a separate process: JAX's CUDA plugin reads its settings when JAX starts.
ENVIRONMENT = optimized_environment() | {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    "JAX_PLATFORMS": "cpu",
}


def uninstall(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Makes imports of these packages fail for a test, as if they were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


PLUGIN = "jax_plugins", "jax_cuda13_plugin"
