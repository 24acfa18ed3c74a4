"""Pictures that are refused."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.data.config import DataConfig
from ddf_jax.inspect import inspect_run
from ddf_jax.models import create


def test_a_network_whose_outputs_are_not_finite_is_not_drawn():
    options = {"stem": "small", "width": 4, "blocks": (1,), "num_classes": 3}
    model: Any = create("resnet18", **options, rngs=nnx.Rngs(0))
    model.eval()
    model.head.bias[...] = jnp.asarray([0.0, jnp.nan, 0.0])
    info, recipe = SimpleNamespace(channels=3, class_names=("a", "b", "c")), SimpleNamespace(data=DataConfig())
    run: Any = SimpleNamespace(model=lambda: model, info=info, recipe=recipe)
    with pytest.raises(ValueError, match="must be finite to be drawn"):
        inspect_run(run, [np.zeros((5, 6, 3), np.float32)])
