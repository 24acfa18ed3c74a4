"""Training steps of windowed attention, ahead of time for a GPU: they run the kernels and never unfold a window."""

import json
import math
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from ddf_jax.models import get_config
from pallas_kernels import aot
from pallas_kernels.aot.programs import TRITON_CALL
from tests.aot import ENVIRONMENT, needs_plugin
from tests.ddf_jax.models.small import abstract_model

ONE_BLOCK = {"blocks": (1,), "stem": "small", "num_classes": 5}
BATCH, SIZE, CHANNELS = 8, 32, 64


def derivative(name: str, **options: Any) -> tuple[Any, tuple[Any, ...]]:
    """A function of a network's loss and gradients in bfloat16, and its arguments but the images, as shapes."""
    graph, parameters, rest = nnx.split(abstract_model(get_config(name, dtype=jnp.bfloat16, **options)), nnx.Param, ...)

    def loss(parameters: nnx.State, rest: nnx.State, images: jax.Array) -> tuple[jax.Array, nnx.State]:
        model: Any = nnx.merge(graph, parameters, rest, copy=True)
        return jnp.square(model(images).astype(jnp.float32)).sum(), nnx.state(model, nnx.BatchStat)

    return jax.value_and_grad(loss, has_aux=True), (parameters, rest)


def largest(shapes: list[str], separator: str) -> int:
    return max(math.prod(map(int, shape.strip(separator).split(separator))) for shape in shapes)


# Windows of 7×7 pixels in the block, of 4×4 and 7×7 in the stems.
@pytest.mark.parametrize(
    ("name", "options", "unfolded"),
    [
        ("sasa_resnet26", ONE_BLOCK, SIZE**2 * CHANNELS * 49),
        pytest.param("sasa_resnet26", {"blocks": (1,)}, SIZE**2 * CHANNELS * 16, marks=pytest.mark.slow),
        pytest.param("lrnet26", {"blocks": (1,)}, (SIZE // 2) ** 2 * CHANNELS * 49, marks=pytest.mark.slow),
    ],
    ids=["block", "attention stem", "local relation stem"],
)
def test_a_lowered_step_runs_the_kernels_and_has_no_unfolded_window(name, options, unfolded):
    function, states = derivative(name, **options)
    images = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)
    text = aot.lower(function, *states, images).as_text()
    assert text.count(TRITON_CALL) >= 5  # the correlation, the filter, and cotangents of both
    assert largest(re.findall(r"tensor<((?:[0-9]+x)+)", text), "x") < BATCH * unfolded / 2


COMPILE = r"""
import json, re, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from pallas_kernels import aot
from tests.ddf_jax.models.test_gpu_step import BATCH, SIZE, derivative, largest

name, options = json.loads(sys.argv[1])
function, states = derivative(name, **options)
mesh = jax.make_mesh((1,), ("data",), devices=aot.compile_only_devices(aot.DEVICES["h200"], 1))
placed = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, PartitionSpec()))
structs = jax.tree.map(placed, (*states, jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), jnp.float32)))
with jax.set_mesh(mesh):
    compiled = jax.jit(function).lower(*structs).compile()
shapes = re.findall(r"\b(?:bf16|f16|f32|pred)\[([0-9,]+)\]", compiled.as_text())  # bytes are workspaces
print(json.dumps({"largest": largest(shapes, ","), **aot.program_summary(compiled)}))
"""


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasa_resnet26", "lrnet26", "nat_mini"])
def test_a_compiled_step_holds_no_unfolded_window(name):
    command = [sys.executable, "-c", COMPILE, json.dumps([name, ONE_BLOCK])]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kernels"][TRITON_CALL] >= 5
    assert found["largest"] < BATCH * SIZE**2 * CHANNELS * 49 / 2
