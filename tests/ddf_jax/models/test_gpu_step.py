"""Networks of windowed attention compiled ahead of time for a GPU: their windows are never unfolded in memory."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.aot import ENVIRONMENT, needs_plugin

PROGRAM = """
import json, math, re, sys
import jax, jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from ddf_jax.models import get_config
from pallas_kernels import aot

name, batch, size, options = json.loads(sys.argv[1])
config = get_config(name, dtype=jnp.bfloat16, **options)
graph, parameters, rest = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param, ...)

def loss(parameters, rest, images):
    model = nnx.merge(graph, parameters, rest, copy=True)
    return jnp.square(model(images).astype(jnp.float32)).sum(), nnx.state(model, nnx.BatchStat)

mesh = jax.make_mesh((1,), ("data",), devices=aot.compile_only_devices(aot.DEVICES["h200"], 1))
place = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, PartitionSpec()))
structs = jax.tree.map(place, (parameters, rest, jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)))
with jax.set_mesh(mesh):
    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*structs).compile()
shapes = re.findall(r"(?:bf|f|s|u|pred)[0-9]*\\[([0-9,]+)\\]", compiled.as_text())
print(json.dumps({
    "largest": max(math.prod(map(int, shape.split(","))) for shape in shapes),
    **aot.program_summary(compiled),
}))
"""


def compiled(name: str, batch: int, size: int, **options: Any) -> Any:
    """A summary of the step of a network in bfloat16, and the values of the largest array anywhere in its program."""
    command = [sys.executable, "-c", PROGRAM, json.dumps([name, batch, size, options])]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ONE_BLOCK = {"blocks": [1], "stem": "small", "num_classes": 5}


# Kernels: forward passes and cotangents of the correlation and of the filter.
@needs_plugin
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        pytest.param("sasa_resnet26", 5, marks=pytest.mark.slow),
        pytest.param("lrnet26", 5, marks=pytest.mark.slow),
        ("nat_mini", 5),
    ],
)
def test_a_block_runs_the_kernels_and_unfolds_no_window(name: str, kernels: int) -> None:
    batch, size, channels, taps = 8, 32, 64, 49
    found = compiled(name, batch, size, **ONE_BLOCK)
    assert found["kernels"]["__gpu$xla.gpu.triton"] >= kernels
    assert found["largest"] < batch * size**2 * channels * taps / 4


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), [("sasa_resnet26", 64), ("lrnet26", 64), ("nat_mini", 64)])
def test_whole_networks_unfold_no_window(name: str, width: int) -> None:
    """Of their first stage, the largest, at 224×224 pixels."""
    found = compiled(name, 16, 224, num_classes=1000)
    assert found["kernels"]["__gpu$xla.gpu.triton"] >= 4 * 5
    assert found["largest"] < 16 * 56**2 * width * 49
