import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.recipe import OptimizerConfig, Recipe
from ddf_jax.training.schedules import StepPlan, learning_rate_schedule, make_optimizer, make_step_plan, sgd

INFO = DataInfo(10, tuple("0123456789"), channels=1, train_size=1437, eval_size=360, image_size=8)
RECIPE = Recipe("r", epochs=3.0, batch_size=64, optimizer=OptimizerConfig(warmup_epochs=0.5))


def test_epochs_become_steps_of_the_global_batch():
    plan = make_step_plan(RECIPE, INFO)
    assert plan.total_steps == 67  # 3 · 1437 / 64 = 67.4
    assert plan.warmup_steps == 11  # 0.5 · 1437 / 64 = 11.2
    assert [step for step in range(68) if plan.evaluates_at(step)] == [22, 45, 67]


@pytest.mark.parametrize("evaluate_every", [0.0, 0.01, 0.3, 1.0, 7.0])
def test_a_run_pauses_exactly_where_something_is_due(evaluate_every: float):
    plan = make_step_plan(dataclasses.replace(RECIPE, evaluate_every=evaluate_every, checkpoint_every=0.4), INFO)
    step, pauses = 0, []
    while step < plan.total_steps:
        step = plan.next_pause(step)
        pauses.append(step)
    assert pauses == [step for step in range(1, 68) if plan.evaluates_at(step) or plan.saves_at(step)]
    assert pauses[-1] == 67
    assert len([step for step in pauses if plan.saves_at(step)]) == 8  # at 0.4, 0.8, … 2.8 epochs and at the end


def test_a_run_without_a_step_after_its_warm_up_is_refused():
    recipe = dataclasses.replace(RECIPE, epochs=0.5)
    with pytest.raises(RunError, match=r"0\.5 epochs are 11 steps, the warm-up of 0\.5 epochs is 11"):
        make_step_plan(recipe, INFO)


@pytest.mark.parametrize("warmup", [0, 7])
def test_the_learning_rate_is_a_line_and_half_a_cosine(warmup: int):
    config = OptimizerConfig(learning_rate=0.4, end_learning_rate=1e-3)
    rate: Any = learning_rate_schedule(config, StepPlan(50, warmup, 0, 0, epoch_steps=10), batch_size=64)
    peak = 0.4 * 64 / 256
    expected = [
        peak * t / warmup
        if t < warmup
        else 1e-3 + (peak - 1e-3) * (1 + math.cos(math.pi * (t - warmup) / (50 - warmup))) / 2
        for t in range(51)
    ]
    np.testing.assert_allclose([rate(jnp.uint32(t)) for t in range(51)], expected, rtol=1e-5)
    assert float(rate(50)) == pytest.approx(1e-3)


@pytest.mark.parametrize("drops", [(), (30, 40)])
def test_the_warm_up_starts_from_a_share_of_the_peak(drops: tuple[int, ...]):
    """mmcv's linear warm-up: rate · (1 - (1 - t / W) · (1 - start))."""
    config = OptimizerConfig(learning_rate=0.4, end_learning_rate=0.0, warmup_start=0.001)
    rate: Any = learning_rate_schedule(config, StepPlan(50, 8, 0, 0, epoch_steps=10, drops=drops), batch_size=64)
    expected = [0.1 * (1 - (1 - t / 8) * (1 - 0.001)) for t in range(9)]
    np.testing.assert_allclose([rate(jnp.uint32(t)) for t in range(9)], expected, rtol=1e-5, atol=1e-8)
    if drops:
        np.testing.assert_allclose([rate(t) for t in (29, 30, 39, 40)], [0.1, 0.01, 0.01, 0.001], rtol=1e-5)


@pytest.mark.parametrize("start", [-0.1, 2.0, math.nan])
def test_a_warm_up_from_no_share_of_the_peak_is_refused(start: float):
    with pytest.raises(UserError, match=rf"`warmup_start` must be a share .*in \[0, 1\], got {start}"):
        OptimizerConfig(warmup_start=start)


def run_sgd(
    config: OptimizerConfig, parameters: dict[str, jax.Array], gradients: list[float]
) -> list[dict[str, jax.Array]]:
    """Parameters after each step. Step n has `gradients[n]` everywhere and the learning rate 0.1 / (n + 1)."""
    tx = sgd(config, lambda step: 0.1 / (jnp.asarray(step, jnp.float32) + 1))
    path: list[Any] = []
    state = tx.init(parameters)
    for gradient in gradients:
        updates, state = tx.update(
            jax.tree.map(lambda p, g=gradient: jnp.full_like(p, g), parameters), state, parameters
        )
        parameters = optax.apply_updates(parameters, updates)  # pyright: ignore[reportAssignmentType]
        path.append(parameters)
    return path


# torch.optim.SGD, from w = 1 with gradients 0.5 and -0.2, decay 0.1, momentum 0.9, rates 0.1 and 0.05, by hand:
# d1 = 0.5 + 0.1 · 1 = 0.6; v1 = 0.6; w1 = 1 - 0.1 · 0.6 = 0.94
# d2 = -0.2 + 0.1 · 0.94 = -0.106; v2 = 0.9 · 0.6 - 0.106 = 0.434; w2 = 0.94 - 0.05 · 0.434 = 0.9183
# nesterov: w1 = 1 - 0.1 · (0.6 + 0.9 · 0.6) = 0.886; d2 = -0.2 + 0.0886 = -0.1114; v2 = 0.54 - 0.1114 = 0.4286
#           w2 = 0.886 - 0.05 · (-0.1114 + 0.9 · 0.4286) = 0.872283
@pytest.mark.parametrize(("nesterov", "expected"), [(False, [0.94, 0.9183]), (True, [0.886, 0.872283])])
def test_sgd_steps_as_torch_does(nesterov: bool, expected: list[float]):
    config = OptimizerConfig(momentum=0.9, weight_decay=0.1, nesterov=nesterov)
    path = run_sgd(config, {"w": jnp.ones((2, 3))}, [0.5, -0.2])
    for parameters, value in zip(path, expected, strict=True):
        np.testing.assert_allclose(parameters["w"], np.full((2, 3), value), rtol=1e-6)


def test_gradients_are_clipped_by_their_common_norm_before_the_weight_decay():
    config = OptimizerConfig(momentum=0.0, weight_decay=0.5, clip_norm=2.0)
    tx = make_optimizer(config, optax.constant_schedule(1.0))
    parameters = {"v": jnp.full(1, 2.0), "w": jnp.full((1, 1), 4.0)}
    state: Any = tx.init(parameters)  # pyright: ignore[reportArgumentType]
    # The norm of (6, 8) is 10, so that a fifth is left; the decay is half of the parameters.
    updates: Any
    updates, state = tx.update({"v": jnp.full(1, 6.0), "w": jnp.full((1, 1), 8.0)}, state, parameters)
    np.testing.assert_allclose(updates["v"], [-(1.2 + 1.0)], rtol=1e-6)
    np.testing.assert_allclose(updates["w"], [[-(1.6 + 2.0)]], rtol=1e-6)
    # Small ones stay as they are.
    updates, _ = tx.update({"v": jnp.full(1, 0.6), "w": jnp.full((1, 1), -0.8)}, state, parameters)
    np.testing.assert_allclose(updates["v"], [-(0.6 + 1.0)], rtol=1e-6)
    np.testing.assert_allclose(updates["w"], [[-(-0.8 + 2.0)]], rtol=1e-6)
    with pytest.raises(UserError, match="`clip_norm` must be a number from 0 on, 0 for no limit, got -1"):
        OptimizerConfig(clip_norm=-1.0)


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_a_run_may_be_resumed_with_another_limit_of_its_gradients(method: Any):
    parameters: Any = {"w": jnp.ones((2, 3))}
    plain, clipped = (
        make_optimizer(OptimizerConfig(method, clip_norm=limit), optax.constant_schedule(0.1)).init(parameters)
        for limit in (0.0, 5.0)
    )
    assert jax.tree.structure(plain) == jax.tree.structure(clipped)


@pytest.mark.parametrize("method", ["sgd", "adam"])
@pytest.mark.parametrize(("rest", "scaled"), [("head", "stages"), ("neck", "backbone")])
def test_the_backbone_takes_the_steps_of_another_learning_rate(method: Any, rest: str, scaled: str):
    """As a parameter group of torch with `lr · factor` does, momentum and decay included: of a classifier all but its
    head, of a detector its backbone."""
    rng = np.random.default_rng(0)
    start = {rest: {"kernel": jnp.ones((2, 3))}, scaled: {0: {"kernel": jnp.ones((2, 3))}}}
    gradients = [jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), start) for _ in "123"]

    def run(factor: float, rate: float) -> Any:
        config = OptimizerConfig(method, nesterov=True, weight_decay=0.1, backbone_factor=factor)
        tx, parameters = make_optimizer(config, optax.constant_schedule(rate)), start
        state: Any = tx.init(parameters)  # pyright: ignore[reportArgumentType]
        for gradient in gradients:
            updates, state = tx.update(gradient, state, parameters)  # pyright: ignore[reportArgumentType]
            parameters = optax.apply_updates(parameters, updates)  # pyright: ignore[reportArgumentType]
        return parameters

    both, head, backbone = run(0.1, 0.05), run(1.0, 0.05), run(1.0, 0.005)
    np.testing.assert_array_equal(both[rest]["kernel"], head[rest]["kernel"])
    # Its gradients and decay follow its own path.
    np.testing.assert_allclose(both[scaled][0]["kernel"], backbone[scaled][0]["kernel"], rtol=1e-6)


def test_the_decay_spares_norm_and_bias_only_when_asked():
    parameters = {"kernel": jnp.ones((2, 3)), "scale": jnp.ones(3)}
    for decay_norm_and_bias, expected in ((True, 1 - 0.1 * 0.6), (False, 1 - 0.1 * 0.5)):
        config = OptimizerConfig(weight_decay=0.1, decay_norm_and_bias=decay_norm_and_bias)
        after = run_sgd(config, parameters, [0.5])[0]
        np.testing.assert_allclose(after["kernel"], np.full((2, 3), 1 - 0.1 * 0.6), rtol=1e-6)
        np.testing.assert_allclose(after["scale"], np.full(3, expected), rtol=1e-6)
