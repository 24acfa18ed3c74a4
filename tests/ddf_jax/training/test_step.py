import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import NonFiniteError, RunError
from ddf_jax.layers import BatchNorm
from ddf_jax.training.devices import data_mesh, global_batch, replicated
from ddf_jax.training.freezing import Unfrozen
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.optimizers import make_optimizer
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.reporting import check_report, check_variables
from ddf_jax.training.state import ModelState, TrainState, abstract_state, parameter_sizes, trained_parameters
from ddf_jax.training.step import eval_step, train_step
from ddf_jax.training.tasks.classification import Classification, ClassificationSums
from ddf_jax.training.tasks.detection import Detection

TASK = Classification(label_smoothing=0.1)
RATE = optax.constant_schedule(0.05)
TX = optax.sgd(RATE, momentum=0.9)  # one for all, so that equal states share a compiled step


class Net(nnx.Module):
    """The parts that make a step hard: batch statistics, random numbers, lists, two dtypes."""

    def __init__(self, dtype: Any, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), dtype=dtype, rngs=rngs)
        self.norms = nnx.List([BatchNorm(8, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(8, 5, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norms[0](self.conv(x)))
        return self.head(self.dropout(self.norms[1](x).mean((1, 2))))


def make_state(devices: int = 1, dtype: Any = jnp.float32) -> TrainState:
    model = Net(dtype, nnx.Rngs(0))
    structure, variables = nnx.split({"model": model, "optimizer": nnx.Optimizer(model, TX, wrt=nnx.Param)})
    sharding = replicated(data_mesh(jax.devices()[:devices]))
    return TrainState(structure, jax.device_put(nnx.to_pure_dict(variables), sharding))


def make_batch(seed: int, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, size).astype(np.int32)
    images = rng.normal(size=(size, 6, 6, 1)).astype(np.float32) + labels[:, None, None, None]
    return {"image": images, "label": labels, "mask": np.ones(size, bool)}


@functools.partial(jax.jit, static_argnums=0)
def step(structure: Any, variables: dict[str, Any], batch: Any) -> Any:
    return train_step(TrainState(structure, variables), batch, task=TASK, learning_rate=RATE, total_steps=20)


@jax.jit
def evaluate(variables: dict[str, Any], batch: Any) -> ClassificationSums:
    return eval_step(ModelState(nnx.split(Net(jnp.float32, nnx.Rngs(0)))[0], variables), batch, task=TASK)


def train(devices: int, steps: int) -> tuple[list[float], dict[str, Any]]:
    mesh, state = data_mesh(jax.devices()[:devices]), make_state(devices)
    variables, losses = state.variables, []
    for n in range(steps):
        variables, report = step(state.structure, variables, global_batch(make_batch(n), mesh))
        losses.append(float(report.loss))
    return losses, variables


@pytest.fixture(scope="module")
def one_device() -> tuple[list[float], dict[str, Any]]:
    return train(1, 20)


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 8])
def test_many_devices_train_as_one(one_device: Any, devices: int):
    losses, variables = train(devices, 20)
    np.testing.assert_allclose(losses[:5], one_device[0][:5], rtol=1e-5)
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-3)
    np.testing.assert_allclose(
        variables["model"]["norms"][0]["mean"], one_device[1]["model"]["norms"][0]["mean"], rtol=1e-3
    )
    assert losses[-1] < losses[0] - 0.1


def test_a_step_updates_statistics_counters_and_nothing_it_should_not(one_device: Any):
    _, variables = one_device
    first = make_state()
    assert int(variables["optimizer"]["step"]) == 20
    assert int(variables["model"]["dropout"]["rngs"]["count"]) > int(
        first.variables["model"]["dropout"]["rngs"]["count"]
    )
    assert not np.allclose(variables["model"]["norms"][0]["var"], first.variables["model"]["norms"][0]["var"])
    assert jax.tree.structure(variables) == jax.tree.structure(first.variables)


def test_evaluation_draws_nothing_at_random_and_uses_running_statistics(one_device: Any):
    variables, batch = one_device[1]["model"], make_batch(99, 16)
    whole = evaluate(variables, batch)
    first = evaluate(variables, batch | {"mask": np.arange(16) < 8})
    second = evaluate(variables, {name: values[8:] for name, values in batch.items()})
    assert float(whole.loss) == pytest.approx(float(first.loss) + float(second.loss), rel=1e-5)
    assert int(whole.correct) == int(first.correct) + int(second.correct)


def test_half_precision_computes_in_half_and_keeps_float32():
    state = make_state(dtype=jnp.bfloat16)
    text = step.lower(*state, make_batch(0)).as_text()
    variables, report = step(*state, make_batch(0))
    assert jax.tree.map(lambda x: x.dtype, variables) == jax.tree.map(lambda x: x.dtype, state.variables)
    assert report.loss.dtype == report.gradient_squares.dtype == jnp.float32
    assert re.search(r"stablehlo.convolution.*-> tensor<16x6x6x8xbf16>", text)
    np.testing.assert_allclose(report.loss, step(*make_state(), make_batch(0))[1].loss, rtol=0.02)


def report_of(change: dict[str, np.ndarray] | None = None, head: float | None = None) -> tuple[Any, list[str]]:
    """The report of a step on a batch changed so, with all of the head's weights set to `head`."""
    state = make_state()
    if head is not None:
        state.variables["model"]["head"]["kernel"] = jnp.full((8, 5), head)
    return jax.device_get(step(*state, make_batch(0) | (change or {}))[1]), list(parameter_sizes(state))


def test_the_cause_of_a_non_finite_step_is_named():
    report, names = report_of()
    check_report(3, report, names, 1.0)
    image = make_batch(0)["image"]
    image[3, 2, 1] = np.nan
    for change, message in (
        ({"image": image}, "step 3: the batch holds pixels that are not finite"),
        ({"label": np.full(16, 5, np.int32)}, "step 3: the batch holds labels outside"),
    ):
        with pytest.raises(NonFiniteError, match=message):
            check_report(3, *report_of(change), 1.0)
    with pytest.raises(
        NonFiniteError, match=r"step 3: the loss is nan on a finite batch, after 1.5 a step before; lower `opt"
    ):
        check_report(3, *report_of(head=np.inf), 1.5)


def test_a_non_finite_gradient_is_named_by_its_parameter():
    report, names = report_of()
    assert names == [
        *("conv.bias", "conv.kernel", "head.bias", "head.kernel"),
        *("norms.0.bias", "norms.0.scale", "norms.1.bias", "norms.1.scale"),
    ]
    squares = report.gradient_squares.copy()
    squares[names.index("norms.1.scale")] = np.inf
    with pytest.raises(NonFiniteError, match=r"the loss is 1\.\d+, but the gradient of `norms.1.scale` is not finite"):
        check_report(3, report._replace(gradient_squares=squares), names, 1.0)


def test_reported_gradients_are_in_the_order_of_the_names():
    state, (report, names) = make_state(), report_of()
    tx = optax.sgd(1.0)  # so that an update is the gradient
    model = nnx.merge(*state)["model"]
    structure, variables = nnx.split({"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=nnx.Param)})
    after, _ = step(structure, nnx.to_pure_dict(variables), make_batch(0))
    for name in ("conv.kernel", "head.bias", "norms.1.scale"):
        old, new = state.variables["model"], after["model"]
        for part in name.split("."):
            key = int(part) if part.isdigit() else part
            old, new = old[key], new[key]
        np.testing.assert_allclose(report.gradient_squares[names.index(name)], np.square(new - old).sum(), rtol=1e-3)


def arrays(variables: dict[str, Any]) -> dict[str, np.ndarray]:
    """By name, without random keys."""
    named = zip(leaf_names(variables), jax.tree.leaves(variables), strict=True)
    return {name: np.asarray(leaf) for name, leaf in named if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)}


def test_what_is_frozen_keeps_its_bits_and_the_rest_takes_steps_of_sgd():
    """Without gradient, weight decay, momentum and new statistics; the backbone at half the learning rate."""
    freeze, rate, decay, factor = ("conv.*", "norms.0.*", "*.bias"), 0.1, 0.3, 0.5
    tx = make_optimizer(OptimizerConfig(weight_decay=decay, backbone_factor=factor), optax.constant_schedule(rate))
    model = nnx.merge(*make_state())["model"]
    trained = nnx.All(nnx.Param, Unfrozen(freeze))
    structure, variables = nnx.split({"model": model, "optimizer": nnx.Optimizer(model, tx, wrt=trained)})
    state = TrainState(structure, nnx.to_pure_dict(variables))
    assert trained_parameters(state) == ["head.kernel", "norms.1.scale"]
    momenta = [name for name in leaf_names(state.variables["optimizer"]) if "trace" in name]
    assert [name.partition("trace.")[2] for name in momenta] == ["head.kernel", "norms.1.scale"]

    after, report = jax.jit(
        lambda variables, batch: train_step(
            TrainState(state.structure, variables), batch, task=TASK, learning_rate=RATE, total_steps=20, freeze=freeze
        )
    )(state.variables, make_batch(0))
    before, after = arrays(state.variables["model"]), arrays(after["model"])
    changed = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    assert changed == {"head.kernel", "norms.1.scale", "norms.1.mean", "norms.1.var", "dropout.rngs.count"}
    for name, square in zip(trained_parameters(state), report.gradient_squares, strict=True):
        old, new = np.float64(before[name]), np.float64(after[name])
        gradient = (old - new) / (rate * (1 if name.startswith("head.") else factor)) - decay * old
        np.testing.assert_allclose(np.square(gradient).sum(), square, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"freeze": ("stem.*", "stage.*")},
            r"got 'stage\.\*', which matches none. Their names begin with head, stages, s",
        ),
        ({"freeze": ("*.mean", "*")}, r"`freeze` must leave a parameter to train"),
        (
            {"freeze": ("st*",), "optimizer": OptimizerConfig(backbone_factor=0.1)},
            r"`optimizer.backbone_factor` needs a parameter of the backbone",
        ),
        (
            {"optimizer": OptimizerConfig(no_decay=("stem.*", "norm.*"))},
            r"`optimizer.no_decay` must match parameters of resnet18, got 'norm\.\*'",
        ),
    ],
)
def test_freezing_without_effect_or_without_rest_is_refused(change: dict[str, Any], message: str):
    options = {"stem": "small", "width": 4, "blocks": (1,)}
    recipe = Recipe("r", ModelConfig("resnet18", options), DataConfig(image_size=8), **change)
    info = DataInfo(10, tuple("0123456789"), channels=1, train_size=100, eval_size=10, image_size=8)
    with pytest.raises(RunError, match=message):
        abstract_state(recipe, info, TX, data_mesh(jax.devices()[:1]))


def test_a_detectors_backbone_may_have_a_rate_of_its_own_where_it_is_trained():
    options = {"channels": 16, "backbone_options": {"width": 4, "blocks": (1, 1, 1, 1)}}
    optimizer, task = OptimizerConfig(backbone_factor=0.1), Detection(canvas=(64, 64))
    recipe = Recipe("r", ModelConfig("retinanet_resnet50", options), optimizer=optimizer, task=task)
    info = DataInfo(10, tuple("0123456789"), channels=3, train_size=100, eval_size=10, image_size=64)
    mesh = data_mesh(jax.devices()[:1])
    abstract_state(recipe, info, TX, mesh)
    with pytest.raises(RunError, match=r"needs a parameter of the backbone, but `freeze` matches all"):
        abstract_state(dataclasses.replace(recipe, freeze=("backbone.*",)), info, TX, mesh)


def test_a_state_that_is_not_finite_is_named():
    variables = make_state().variables
    check_variables(3, variables)
    variables["model"]["norms"][1]["var"] = jnp.full(8, jnp.inf)
    with pytest.raises(NonFiniteError, match=r"step 3: after the update `model.norms.1.var` is not finite"):
        check_variables(3, variables)


class Progress(Classification):
    """Classification whose metric is the progress that the step tells its task."""

    def step_metrics(self, model: Any, batch: Any, progress: jax.Array) -> Any:
        return super().step_metrics(model, batch, progress)._replace(metric=progress)


def test_progress_is_the_share_of_steps_taken():
    state = make_state()
    run = jax.jit(
        lambda variables, batch: train_step(
            TrainState(state.structure, variables), batch, task=Progress(), learning_rate=RATE, total_steps=20
        )
    )
    variables, found = state.variables, []
    for seed in range(3):
        variables, report = run(variables, make_batch(seed))
        found.append(float(report.metric))
    np.testing.assert_allclose(found, [0, 1 / 20, 2 / 20])
