"""The names of `ddf_jax` itself."""

import subprocess
import sys
from pathlib import Path

import pytest

import ddf_jax
from ddf_jax.models import create
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run import load_run, predict
from ddf_jax.training.train import train
from pallas_kernels import dynamic_filter

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_there_and_listed():
    for name in ddf_jax.__all__:
        assert getattr(ddf_jax, name) is not None
        assert name in dir(ddf_jax)
    assert (ddf_jax.train, ddf_jax.evaluate, ddf_jax.predict, ddf_jax.load_run) == (train, evaluate, predict, load_run)
    assert (ddf_jax.Recipe, ddf_jax.create, ddf_jax.dynamic_filter) == (Recipe, create, dynamic_filter)
    assert ddf_jax.__version__
    with pytest.raises(AttributeError, match="module 'ddf_jax' has no attribute 'trian'"):
        ddf_jax.trian  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018


def test_importing_it_imports_nothing_else_and_types_ship_with_it():
    program = "import ddf_jax, sys; print(*sorted({'jax', 'flax', 'grain', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    assert Path(ddf_jax.__file__).with_name("py.typed").exists()
