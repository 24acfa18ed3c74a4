"""What a recipe adds to a training step: microbatches, averaged weights, a scaled loss, groups of statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ddf_jax.errors import NonFiniteError, UserError
from ddf_jax.layers import BatchNorm
from ddf_jax.layers.progress import annealed
from ddf_jax.training.gradients import loss_and_gradients
from ddf_jax.training.leaves import floating, leaf_names
from ddf_jax.training.loss_scale import DOUBLED_AFTER, INITIAL, initial_loss_scale, next_loss_scale
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.reporting import check_report
from ddf_jax.training.state import TrainState, averaged_model, complete
from ddf_jax.training.step import train_step
from ddf_jax.training.tasks.classification import Classification

TASK, RATE = Classification(label_smoothing=0.1), optax.constant_schedule(0.05)


class Net(nnx.Module):
    """A classifier whose BatchNorm is optional."""

    def __init__(self, dtype: Any = jnp.float32, normalized: bool = True):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(1, 8, (3, 3), dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(8, dtype=dtype, rngs=rngs)
        self.normalized = normalized
        self.head = nnx.Linear(8, 5, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv(x)
        return self.head(nnx.relu(self.norm(x) if self.normalized else x).mean((1, 2)))


def make_batch(seed: int, size: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, size).astype(np.int32)
    images = rng.normal(size=(size, 6, 6, 1)).astype(np.float32) + labels[:, None, None, None]
    return {"image": images, "label": labels, "mask": np.ones(size, bool)}


def state_of(recipe: Recipe, net: Net) -> TrainState:
    nodes = {"model": net, "optimizer": nnx.Optimizer(net, optax.sgd(RATE, momentum=0.9), wrt=nnx.Param)}
    structure, variables = nnx.split(nodes)
    return TrainState(structure, complete(recipe, nnx.to_pure_dict(variables)))


def arrays(tree: Any) -> dict[str, Any]:
    return {name: np.float64(leaf) for name, leaf in zip(leaf_names(tree), jax.tree.leaves(tree), strict=True)}


def gradients_of(net: Net, batch: Any, microbatches: int) -> tuple[float, dict[str, np.ndarray], Net]:
    @nnx.jit
    def run(net: Net, batch: Any) -> Any:
        metrics, gradients = loss_and_gradients(
            net, nnx.Param, batch, task=TASK, progress=jnp.float32(0), microbatches=microbatches
        )
        return metrics.loss, gradients

    loss, gradients = run(net, batch)
    return float(loss), arrays(nnx.to_pure_dict(gradients)), net


def test_microbatches_add_up_to_the_gradients_of_the_whole_batch_where_examples_are_apart():
    whole, parts = (gradients_of(Net(normalized=False), make_batch(0), count) for count in (1, 3))
    assert whole[0] == pytest.approx(parts[0], rel=1e-6)
    for name, gradient in whole[1].items():
        np.testing.assert_allclose(parts[1][name], gradient, rtol=1e-4, atol=1e-7)


def test_with_batch_norm_microbatches_are_batches_of_their_own():
    """Gradients are the mean over the parts, and the running statistics see one part after the other."""
    batch, one_by_one = make_batch(0), Net()
    found = []
    for part in range(3):
        rows = {name: values[part::3] for name, values in batch.items()}
        found.append(gradients_of(one_by_one, rows, 1)[:2])
    loss, gradients, net = gradients_of(Net(), batch, 3)
    assert loss == pytest.approx(np.mean([each for each, _ in found]), rel=1e-6)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, np.mean([each[name] for _, each in found], 0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(net.norm.mean[...], one_by_one.norm.mean[...], rtol=1e-6)
    np.testing.assert_allclose(net.norm.var[...], one_by_one.norm.var[...], rtol=1e-6)


def test_averaged_weights_are_the_recursion_of_all_weights_so_far():
    recipe = Recipe("r", ema_decay=0.2)
    state = state_of(recipe, Net())
    expected = arrays(floating(state.variables["model"]))
    np.testing.assert_equal(arrays(state.variables["ema"]), expected)

    @jax.jit
    def step(variables: Any, batch: Any) -> Any:
        state_now = TrainState(state.structure, variables)
        return train_step(state_now, batch, task=TASK, learning_rate=RATE, total_steps=5, ema_decay=0.2)

    variables = state.variables
    for t in range(4):
        variables, _ = step(variables, make_batch(t))
        decay = min(0.2, (1 + t) / (10 + t))
        now = arrays(floating(variables["model"]))
        expected = {name: decay * mean + (1 - decay) * now[name] for name, mean in expected.items()}
        for name, mean in arrays(variables["ema"]).items():
            np.testing.assert_allclose(mean, expected[name], rtol=1e-5, atol=1e-7)
    averaged = averaged_model(variables)
    assert leaf_names(averaged) == leaf_names(variables["model"])
    np.testing.assert_array_equal(averaged["norm"]["var"], variables["ema"]["norm"]["var"])


@pytest.fixture(scope="module")
def half() -> Any:
    """A state in float16 and its step, whose gradients would be 0 or infinite without the right factor."""
    state = state_of(Recipe("r", dtype="float16"), Net(jnp.float16))

    @jax.jit
    def step(variables: Any, batch: Any) -> Any:
        return train_step(TrainState(state.structure, variables), batch, task=TASK, learning_rate=RATE, total_steps=5)

    return state, step


def test_the_loss_in_float16_is_scaled_and_its_gradients_are_not(half: Any):
    state, step = half
    variables, report = step(state.variables, make_batch(0))
    exact = gradients_of(Net(), make_batch(0), 1)
    assert float(report.loss) == pytest.approx(exact[0], rel=1e-2)
    squares = [np.square(gradient).sum() for gradient in exact[1].values()]
    np.testing.assert_allclose(report.gradient_squares, squares, rtol=0.1, atol=1e-4)
    assert (float(report.loss_scale), int(variables["loss_scale"]["finite_steps"])) == (INITIAL, 1)


def test_a_step_whose_gradients_are_too_large_for_float16_is_undone_and_halves_the_scale(half: Any):
    state, step = half
    scale = {"scale": jnp.float32(2.0**40), "finite_steps": jnp.int32(3)}
    averages = jax.tree.map(lambda leaf: leaf + 1, floating(state.variables["model"]))
    variables, report = step(state.variables | {"loss_scale": scale, "ema": averages}, make_batch(0))
    jax.tree.map(np.testing.assert_array_equal, variables.pop("ema"), averages)
    before, after = arrays(state.variables), arrays(variables)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"model.norm.mean", "model.norm.var", "loss_scale.scale"}
    assert (float(report.loss_scale), after["loss_scale.finite_steps"]) == (2.0**39, 0)
    names = [name.removeprefix("model.") for name in before if name.startswith("model.") and "norm." not in name]
    report = jax.device_get(report)
    check_report(1, report, [*names, "norm.bias", "norm.scale"], None)
    hopeless = report._replace(loss_scale=np.float32(0.5))
    with pytest.raises(NonFiniteError, match="but the gradient of"):
        check_report(1, hopeless, [*names, "norm.bias", "norm.scale"], None)


class Told(Net):
    """Remembers a value that follows the training."""

    def __init__(self):
        super().__init__(normalized=False)
        self.seen = nnx.BatchStat(jnp.float32(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        self.seen[...] = jnp.float32(annealed(30.0, 1.0, share=0.5))
        return super().__call__(x)


def test_layers_are_told_how_far_training_has_come():
    state, batch = state_of(Recipe("r"), Told()), make_batch(0)

    @jax.jit
    def step(variables: Any, batch: Any) -> Any:
        state_ = TrainState(state.structure, variables)
        return train_step(state_, batch, task=TASK, learning_rate=RATE, total_steps=4, microbatches=2)[0]

    variables, seen = state.variables, []
    for _ in range(4):
        variables = step(variables, batch)
        seen.append(float(variables["model"]["seen"]))
    assert seen == [30.0, 15.5, 1.0, 1.0]


def test_the_scale_doubles_after_many_finite_steps():
    state = initial_loss_scale() | {"finite_steps": jnp.int32(DOUBLED_AFTER - 2)}
    for expected in ((INITIAL, DOUBLED_AFTER - 1), (2 * INITIAL, 0), (2 * INITIAL, 1)):
        state = next_loss_scale(state, jnp.bool(True))
        assert (float(state["scale"]), int(state["finite_steps"])) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"microbatches": 3}, "`batch_size` must be a multiple of `microbatches`, got 256 and 3"),
        ({"microbatches": 0}, "`microbatches` must be at least 1, got 0"),
        ({"microbatches": 2, "batch_norm_examples": 256}, "must divide the 128 examples of a batch"),
        ({"ema_decay": 1.0}, r"`ema_decay` must be in \[0, 1\), got 1"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Recipe("r", **options)
