"""Models load a file that fits as a whole, and stay unchanged when a file does not fit."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax import models
from ddf_jax.checkpoints import CheckpointError, convert, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from ddf_jax.checkpoints.conversion import expected_shapes, named_arrays
from ddf_jax.checkpoints.layouts import COUNTER
from ddf_jax.verify.random_inputs import random_weights
from tests.ddf_jax.models.small import drawn


def small(**options):
    """A small model with all kinds of tensors of a bottleneck."""
    structure, *state = drawn(models.get_config("ddf_resnet50", blocks=(2, 1), num_classes=7, width=16, **options))
    return nnx.merge(structure, *jax.tree.map(jnp.asarray, state))


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def official(model):
    weights = random_weights(expected_shapes(model, "official"), margin=0.0)
    return {name: value if name.endswith(COUNTER) else value.astype(np.float32) for name, value in weights.items()}


def with_counts(tensors, count):
    return {name: np.array(count, np.int64) if name.endswith(COUNTER) else value for name, value in tensors.items()}


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in right)


def test_official_names_through_a_model_and_back_are_the_identity(model, official, tmp_path):
    write_tensors(tmp_path / "in.safetensors", official)
    load_checkpoint(model, tmp_path / "in.safetensors")
    save_checkpoint(model, tmp_path / "out.safetensors", naming="official")
    assert same(read_tensors(tmp_path / "out.safetensors"), official)


def test_own_names_through_a_model_and_back_are_the_identity(model, tmp_path):
    save_checkpoint(model, tmp_path / "in.safetensors")
    before = named_arrays(model)
    other = small()
    nnx.update(other, jax.tree.map(lambda x: jnp.asarray(np.zeros_like(x)), nnx.state(other)))
    load_checkpoint(other, tmp_path / "in.safetensors")
    save_checkpoint(other, tmp_path / "out.safetensors")
    assert same(named_arrays(other), before)
    assert (tmp_path / "in.safetensors").read_bytes() == (tmp_path / "out.safetensors").read_bytes()


def test_files_there_and_back_are_the_identity_counters_included(official, tmp_path):
    trained = with_counts(official, 1234)
    write_tensors(tmp_path / "in.safetensors", trained)
    assert convert(tmp_path / "in.safetensors", tmp_path / "own.safetensors") == len(trained)
    assert "stem.conv.kernel" in read_tensors(tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "out.safetensors")
    assert same(read_tensors(tmp_path / "out.safetensors"), trained)


def test_a_naming_that_the_source_has_already_is_kept(official, tmp_path):
    write_tensors(tmp_path / "in.safetensors", official)
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", naming="official")
    assert same(read_tensors(tmp_path / "out.safetensors"), official)


def test_converted_files_load_with_counters_and_without(model, official, tmp_path):
    write_tensors(tmp_path / "in.safetensors", official)
    convert(tmp_path / "in.safetensors", tmp_path / "own.safetensors")
    load_checkpoint(model, tmp_path / "own.safetensors")
    expected = named_arrays(model)
    write_tensors(tmp_path / "bare.safetensors", {k: v for k, v in official.items() if not k.endswith(COUNTER)})
    load_checkpoint(model, tmp_path / "bare.safetensors")
    assert same(named_arrays(model), expected)


def test_a_model_created_from_a_checkpoint_is_ready_to_predict(tmp_path):
    options: dict[str, Any] = {"blocks": (1,), "width": 4, "num_classes": 7}
    model = nnx.merge(*drawn(models.get_config("resnet18", **options)))
    save_checkpoint(model, tmp_path / "a.safetensors", naming="official")
    again = models.create("resnet18", **options, checkpoint=tmp_path / "a.safetensors", rngs=nnx.Rngs(5))
    assert same(named_arrays(again), named_arrays(model))
    assert again.stem.norm.use_running_average


def test_values_take_the_dtype_that_the_model_stores(official, tmp_path):
    write_tensors(tmp_path / "in.safetensors", official)
    stored = small(param_dtype=jnp.bfloat16)
    load_checkpoint(stored, tmp_path / "in.safetensors")
    arrays = named_arrays(stored)
    assert {value.dtype for value in arrays.values()} == {np.dtype(jnp.bfloat16)}
    assert np.array_equal(arrays["head.bias"], official["fc.bias"].astype(jnp.bfloat16))


def renamed(tensors):
    return {("conv1.wait" if name == "conv1.weight" else name): value for name, value in tensors.items()}


def without(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("layer1.1.bn2.")}


PROBLEMS = {
    "renamed": (
        renamed,
        [r"missing \(1\): conv1.weight \[16, 3, 7, 7\]", r"unexpected \(1\): conv1.wait \[16, 3, 7, 7\]"],
    ),
    "missing": (without, [r"missing \(4\): layer1.1.bn2.bias \[16\]; layer1.1.bn2.running_mean \[16\]; .*weight"]),
    "extra": (
        lambda tensors: {**tensors, "layer1.5.conv1.weight": np.zeros((2, 2, 1, 1))},
        [r"unexpected \(1\): layer1.5"],
    ),
    "shape": (
        lambda tensors: {**tensors, "fc.bias": np.zeros(9)},
        [r"another shape \(1\): fc.bias must be \[7\], got \[9\]"],
    ),
    "integer": (
        lambda tensors: {**tensors, "fc.bias": np.zeros(7, int)},
        [r"not floating-point \(1\): fc.bias is int64"],
    ),
    "all": (
        lambda tensors: {**renamed(without(tensors)), "fc.bias": np.zeros(9)},
        [r"missing \(5\)", r"unexpected \(1\)", r"another shape \(1\)"],
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_file_that_does_not_fit_changes_nothing(model, official, tmp_path, problem):
    change, messages = PROBLEMS[problem]
    write_tensors(tmp_path / "in.safetensors", change(official))
    before = named_arrays(model)
    with pytest.raises(CheckpointError, match="does not fit the model; nothing was loaded") as error:
        load_checkpoint(model, tmp_path / "in.safetensors")
    assert [message for message in messages if not re.search(message, str(error.value))] == [], error.value
    assert same(named_arrays(model), before)


def test_problems_are_told_in_the_names_of_the_file(model, tmp_path):
    own = named_arrays(model)
    del own["head.bias"]
    write_tensors(tmp_path / "in.safetensors", own)
    with pytest.raises(CheckpointError, match=r"missing \(1\): head.bias \[7\]"):
        load_checkpoint(model, tmp_path / "in.safetensors")


def named(name):
    """The factory that `ddf convert --model NAME` passes."""
    return functools.partial(models.abstract, name)


def test_convert_checks_against_a_model(tmp_path):
    shapes = expected_shapes(
        nnx.eval_shape(lambda: models.create("resnet18", num_classes=3, rngs=nnx.Rngs(0))), "official"
    )
    tensors = random_weights(shapes, margin=0.0)
    write_tensors(tmp_path / "in.safetensors", tensors)
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", model=named("resnet18"))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        convert(
            tmp_path / "in.safetensors",
            tmp_path / "other.safetensors",
            model=named("resnet34"),
        )
    assert not (tmp_path / "other.safetensors").exists()
    with pytest.raises(ValueError, match="no model named 'resnet19'"):
        convert(
            tmp_path / "in.safetensors",
            tmp_path / "other.safetensors",
            model=named("resnet19"),
        )


def test_convert_names_every_tensor_that_no_model_has(tmp_path):
    write_tensors(tmp_path / "in.safetensors", {"encoder.0.weight": np.ones(1), "encoder.1.weight": np.ones(1)})
    with pytest.raises(CheckpointError, match=r"encoder\.0\.weight, encoder\.1\.weight"):
        convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
