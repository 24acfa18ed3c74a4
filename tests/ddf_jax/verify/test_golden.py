"""Parity with the PyTorch port without PyTorch, in float64, against recorded values."""

import jax
import pytest

from ddf_jax.checkpoints.conversion import expected_shapes, load_tensors
from ddf_jax.verify.flax_trace import trace_network
from ddf_jax.verify.networks import create_abstract
from ddf_jax.verify.random_inputs import random_weights
from ddf_jax.verify.settings import TOLERANCES
from tests.golden import fingerprint

FAST = "ddf_add_resnet50"  # bottlenecks and a filter


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in fingerprint.MODELS],
)
def test_every_value_is_the_recorded_one(name):
    with jax.enable_x64(True):
        model = create_abstract(name, "float64", fingerprint.NUM_CLASSES, fingerprint.OPTIONS)
        weights = random_weights(expected_shapes(model, "official"), margin=fingerprint.MARGIN)
        load_tensors(model, weights, "random weights")
        ours = fingerprint.fingerprint(trace_network(model, fingerprint.inputs(), dtype="float64"))
    errors = fingerprint.errors(ours, fingerprint.load(name))
    assert {name: error for name, error in errors.items() if not error <= TOLERANCES["float64"]} == {}
    assert {"evaluation logits [2, 10]", "training logits [2, 10]", "loss loss []"} <= errors.keys()


def test_a_changed_value_and_a_missing_one_show():
    recorded = fingerprint.load("resnet18")
    name = "gradient layer2.0.bn1.weight [64]"
    projection, largest = recorded[name]
    changed = {**recorded, name: (projection + 1e-6 * largest, largest)}
    assert fingerprint.errors(changed, recorded)[name] > 1e-8
    del changed[name]
    assert fingerprint.errors(changed, recorded)[name] == float("inf")
