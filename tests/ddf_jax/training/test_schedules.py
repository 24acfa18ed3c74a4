import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.recipe import OptimizerConfig, Recipe
from ddf_jax.training.schedules import StepPlan, learning_rate_schedule, make_step_plan

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
