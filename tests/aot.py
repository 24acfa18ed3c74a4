"""For tests that compile for a GPU that is not there; `make test` brings what they need where it is offered."""

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

# Of a process of its own, because what JAX's CUDA plugin needs must be set before JAX starts.
ENVIRONMENT = optimized_environment() | {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    "JAX_PLATFORMS": "cpu",
}


def uninstall(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """For a test, importing these fails as if they were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


PLUGIN = "jax_plugins", "jax_cuda13_plugin"
