"""The task of depth: what counts in its loss and its score, and the optimizer and rates that its recipes have."""

import dataclasses
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.evaluate import evaluate_batches
from ddf_jax.training.optimizers import adam
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.schedules import learning_rate_schedule, make_step_plan
from ddf_jax.training.state import ModelState, create_model
from ddf_jax.training.step import eval_step
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling, charbonnier, draw_depth, root_mean_square

TASK = DepthUpsampling(scale=2)
START = jnp.float32(0)
INFO = DataInfo(0, (), channels=3, train_size=80, eval_size=5, image_size=4, eval_shape=(5, 6))


class Offset(nnx.Module):
    """Returns the first colour of the image."""

    def __call__(self, image: jax.Array, low: jax.Array) -> jax.Array:
        return image[..., :1]


def batches(count: int, batch_size: int, rng: np.random.Generator) -> Any:
    """Pictures of 5×6 with holes in a fifth of the truth; padding is not finite and must not be looked at."""
    for start in range(0, count, batch_size):
        mask = np.arange(start, start + batch_size) < count
        image = rng.uniform(1, 2, (batch_size, 5, 6, 3)).astype(np.float32)
        depth = np.where(rng.random((batch_size, 5, 6, 1)) < 0.2, 0, rng.uniform(1, 2, (batch_size, 5, 6, 1)))
        image[~mask] = np.nan
        yield {"image": image, "low": np.ones((batch_size, 3, 3, 1), np.float32), "mask": mask} | {
            "depth": depth.astype(np.float32)
        }


@pytest.mark.parametrize("batch_size", [8, 16])
def test_the_score_is_the_rmse_in_centimetres_over_all_measured_pixels(batch_size: int):
    whole = list(batches(13, batch_size, np.random.default_rng(0)))
    structure, variables = nnx.split(Offset())
    step = jax.jit(lambda _, batch: eval_step(ModelState(structure, nnx.to_pure_dict(variables)), batch, task=TASK))
    scores = evaluate_batches(step, None, whole, data_mesh(), task=TASK)
    errors = []
    for batch in whole:
        measured = (batch["depth"] > 0) & batch["mask"][:, None, None, None]
        errors.append((batch["image"][..., :1].astype(np.float64) - batch["depth"])[measured])
    squares = np.square(np.concatenate(errors))
    assert scores is not None
    assert scores["test_rmse"] == pytest.approx(100 * np.sqrt(squares.mean()), rel=1e-6)
    assert (scores["test_pixels"], scores["test_examples"]) == (len(squares), 13)
    line = f"test RMSE {scores['test_rmse']:.2f} cm, {len(squares)} pixels of 13 images"
    assert TASK.summary_line(scores) == line


def test_holes_and_padding_have_no_part_in_the_loss_nor_in_its_gradient():
    batch = next(batches(3, 8, np.random.default_rng(1)))
    clean = batch | {"image": np.nan_to_num(batch["image"])}
    metrics = TASK.step_metrics(Offset(), clean, START)
    gradient = jax.grad(lambda image: TASK.step_metrics(Offset(), clean | {"image": image}, START).loss)(
        jnp.asarray(clean["image"])
    )
    measured = (batch["depth"] > 0) & batch["mask"][:, None, None, None]
    assert ((np.asarray(gradient)[..., :1] != 0) == measured).all()
    expected = np.sqrt(np.square(clean["image"][..., :1] - batch["depth"])[measured].mean())
    assert float(metrics.loss) == pytest.approx(expected, rel=1e-3)
    assert float(np.asarray(metrics.metric)) == pytest.approx(100 * float(metrics.loss))
    assert not any(metrics.invalid.values())
    broken = TASK.step_metrics(Offset(), clean | {"depth": -clean["depth"]}, START).invalid
    assert [what for what, found in broken.items() if found] == ["depth that is not finite or negative"]


def test_training_minimises_the_chosen_loss_and_shows_the_rmse():
    [batch] = batches(8, 8, np.random.default_rng(0))
    cases: list[tuple[Any, float]] = [("rmse", 0.0), ("rmse", 1.0), *(("charbonnier", p) for p in (0.0, 0.5, 1.0))]
    for loss, progress in cases:
        task = DepthUpsampling(scale=2, loss=loss)
        values = {name: jnp.asarray(values) for name, values in batch.items()}
        metrics = task.step_metrics(Offset(), values, jnp.float32(progress))
        errors = (batch["image"][..., :1] - batch["depth"])[batch["depth"] > 0].astype(np.float64)
        rmse = np.sqrt(np.mean(errors**2))
        epsilon = {0.0: 0.01, 0.5: 0.1, 1.0: 1.0}[progress]
        expected = {"rmse": rmse, "charbonnier": np.mean(np.sqrt(errors**2 + epsilon**2) - epsilon)}[loss]
        assert float(metrics.loss) == pytest.approx(expected, rel=1e-3)
        assert float(np.asarray(metrics.metric)) == pytest.approx(100 * rmse, rel=1e-3)


def test_a_root_mean_square_of_nothing_or_of_zeros_has_a_finite_gradient():
    for values, mask in ((jnp.ones(3), jnp.zeros(3, bool)), (jnp.zeros(3), jnp.ones(3, bool))):
        value, gradient = jax.value_and_grad(root_mean_square)(values, mask)
        assert float(value) == pytest.approx(0, abs=1e-6)
        assert not gradient.any()


def test_shapes_are_those_of_crops_in_training_and_of_pictures_in_evaluation():
    assert TASK.batch_spec(INFO, training=True)["low"].shape == (2, 2, 1)
    evaluation = {name: spec.shape for name, spec in TASK.batch_spec(INFO, training=False).items()}
    assert evaluation == {"image": (5, 6, 3), "low": (3, 3, 1), "depth": (5, 6, 1), "mask": ()}


def test_a_picture_has_a_row_for_each_example_and_holes_do_not_stop_it():
    batch = next(batches(2, 2, np.random.default_rng(2)))
    batch["depth"][1] = 0
    batch["image"] /= 2
    data = draw_depth(batch, {"bicubic": batch["image"][..., :1], "ours": batch["image"][..., 1:2]})
    with Image.open(io.BytesIO(data)) as image:
        assert image.width > 600


def test_a_model_must_be_one_for_the_task():
    recipe = Recipe(name="r", model=ModelConfig("resnet18"), task=DepthUpsampling())
    with pytest.raises(
        UserError, match=r"for depth_upsampling, such as ddf_up_net, got resnet18, a model for classification"
    ):
        create_model(recipe, INFO)
    recipe = Recipe(name="r", model=ModelConfig("pac_net"))
    with pytest.raises(UserError, match="got pac_net, a model for depth_upsampling"):
        create_model(recipe, dataclasses.replace(INFO, num_classes=3))


def test_options_out_of_range_are_refused():
    with pytest.raises(UserError, match="`scale` must be at least 1, got 0"):
        DepthUpsampling(scale=0)
    with pytest.raises(UserError, match="`loss` must be one of rmse, charbonnier, got 'l1'"):
        DepthUpsampling(loss="l1")  # pyright: ignore[reportArgumentType]


def test_the_rate_drops_to_a_tenth_after_the_named_epochs():
    config = OptimizerConfig(learning_rate=0.32, drops=(3, 5), warmup_epochs=1)
    recipe = Recipe(name="r", optimizer=config, epochs=8, batch_size=8)
    plan = make_step_plan(recipe, INFO)
    assert plan.drops == (30, 50)
    rate: Any = learning_rate_schedule(config, plan, 8)
    found = [float(rate(jnp.asarray(step))) for step in (0, 5, 10, 29, 31, 49, 51)]
    np.testing.assert_allclose(found, [0, 0.005, 0.01, 0.01, 0.001, 0.001, 0.0001], rtol=1e-5)
    flat = dataclasses.replace(config, warmup_epochs=0)
    rate = learning_rate_schedule(flat, make_step_plan(dataclasses.replace(recipe, optimizer=flat), INFO), 8)
    np.testing.assert_allclose([float(rate(jnp.asarray(step))) for step in (0, 31)], [0.01, 0.001], rtol=1e-5)


def test_adam_adds_its_decay_to_the_gradient():
    gradient = {"w": jnp.array([[0.3, 0.1]])}
    parameters: Any = {"w": jnp.array([[1.0, -2.0]])}
    tx = adam(OptimizerConfig(method="adam", weight_decay=0.1), optax.constant_schedule(0.01))
    state, m, v = tx.init(parameters), 0.0, 0.0
    expected = np.array([[1.0, -2.0]])
    for step in (1, 2):
        updates, state = tx.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        g = np.array([[0.3, 0.1]]) + 0.1 * expected
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected = expected - 0.01 * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(parameters["w"], expected, rtol=1e-5)


def test_charbonnier_is_its_formula_and_smooth_at_0():
    values, mask = jnp.array([0.0, -0.03, 2.0, jnp.inf]), jnp.array([True, True, True, False])
    loss, gradient = jax.value_and_grad(charbonnier)(values, mask, epsilon=0.01)
    expected = np.sqrt(np.array([0, 0.03, 2.0]) ** 2 + 0.01**2) - 0.01
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, [*(np.array([0, -0.03, 2.0]) / (expected + 0.01) / 3), 0], rtol=1e-5)
    assert float(charbonnier(values, jnp.zeros(4, bool), epsilon=0.01)) == 0.0
