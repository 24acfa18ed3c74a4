"""The benchmark of layers: each can be run, and rows say what was."""

import jax
import pytest
from flax import nnx

from experiments.benchmarks import layers

SMALL = (1, 4, 5, 32)
UPSAMPLERS = ("ddf_up", "carafe", "pixel_shuffle", "deconvolution")


def test_a_layer_has_a_row_for_each_pass():
    rows = layers.measure(["depthwise3x3"], shape=SMALL, rounds=2)
    assert [row["pass"] for row in rows] == ["forward", "forward_backward"]
    for row in rows:
        assert (row["implementation"], row["layer"], row["shape"]) == ("jax", "depthwise3x3", "1x4x5x32")
        assert row["parameters"] == 9 * 32
        assert row["median_ms"] > 0
        assert row["quartile_distance_ms"] >= 0
        assert row["peak_bytes"] > 4 * 9 * 32
    table = layers.to_table(rows).splitlines()
    assert table[1].split()[:2] == ["depthwise3x3", "288"]
    assert "(1.0×)" in table[1]


@pytest.mark.parametrize("name", layers.LAYERS)
def test_each_layer_keeps_the_channels(name: str):
    def run(x: jax.Array) -> jax.Array:
        return layers.LAYERS[name](layers.SHAPE[-1], rngs=nnx.Rngs(0))(x)

    scale = 2 if name in UPSAMPLERS else 1
    batch, height, width, channels = layers.SHAPE
    y = jax.eval_shape(run, jax.ShapeDtypeStruct(layers.SHAPE, "float32"))
    assert y.shape == (batch, scale * height, scale * width, channels)
