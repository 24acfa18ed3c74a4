"""Marks for tests that compile for a GPU that is not there; `make test` installs what they need where it is offered."""

import importlib.util

import jax
import pytest

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs: pip install triton")
needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason=f"needs: pip install jax-cuda13-plugin=={jax.__version__} jax-cuda13-pjrt=={jax.__version__}",
)
