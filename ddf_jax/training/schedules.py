"""From a recipe's epochs and rates per 256 examples to steps and a learning rate per step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError
from ddf_jax.training.recipe import OptimizerConfig, Recipe


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """A run's durations in steps. An interval need not be whole: every 22.45 steps means after 22, 45, 67, …"""

    total_steps: int
    warmup_steps: int
    evaluate_every: float  # 0: only at the end
    checkpoint_every: float  # 0: only at the end
    epoch_steps: float  # in an epoch
    drops: tuple[int, ...] = ()  # steps after which the learning rate is divided by ten

    def evaluates_at(self, step: int) -> bool:
        """Whether an evaluation is due after so many steps."""
        return self._is_due(step, self.evaluate_every)

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after so many steps."""
        return self._is_due(step, self.checkpoint_every)

    def next_pause(self, step: int) -> int:
        """The first step after `step` with something due."""
        later = range(step + 1, self.total_steps + 1)
        return next(step for step in later if self.evaluates_at(step) or self.saves_at(step))

    def _is_due(self, step: int, every: float) -> bool:
        return step == self.total_steps or (step > 0 and every > 0 and step == round(round(step / every) * every))


def check_warmup(recipe: Recipe) -> None:
    """Checks what is known before the data are: a warm-up of all epochs.

    Raises:
        RunError: the run has no step after its warm-up, whatever the data.
    """
    if recipe.optimizer.warmup_epochs >= recipe.epochs:
        raise RunError(
            f"`epochs` must leave a step after the warm-up, got {recipe.epochs} epochs and a warm-up of "
            f"{recipe.optimizer.warmup_epochs}. Raise `epochs` or lower `optimizer.warmup_epochs`."
        )


def make_step_plan(recipe: Recipe, info: DataInfo) -> StepPlan:
    """Counts the steps of `recipe` on data of this size.

    Raises:
        RunError: the run has no step after its warm-up.
    """
    total = info.steps(recipe.epochs, recipe.batch_size)
    warmup = info.steps(recipe.optimizer.warmup_epochs, recipe.batch_size) if recipe.optimizer.warmup_epochs else 0
    if warmup >= total:
        raise RunError(
            f"`epochs` must leave a step after the warm-up: {recipe.epochs} epochs are {total} steps, the warm-up of "
            f"{recipe.optimizer.warmup_epochs} epochs is {warmup}. Raise `epochs` or lower `optimizer.warmup_epochs`."
        )
    epoch = info.train_size / recipe.batch_size
    drops = tuple(info.steps(epochs, recipe.batch_size) for epochs in recipe.optimizer.drops)
    return StepPlan(total, warmup, recipe.evaluate_every * epoch, recipe.checkpoint_every * epoch, epoch, drops)


def learning_rate_schedule(config: OptimizerConfig, plan: StepPlan, batch_size: int) -> optax.Schedule:
    """Linear warm-up, then half a cosine, or, where the recipe has `drops`, a tenth after each of them.

    With T = `plan.total_steps`, W = `plan.warmup_steps`, `peak = learning_rate · batch_size / 256` (Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017), `start = peak · warmup_start` and `end = end_learning_rate`:

        rate(t) = start + (peak - start) · t / W                          for t < W
        rate(t) = end + (peak - end) · (1 + cos(π · (t - W) / (T - W))) / 2    after
    """
    peak = config.learning_rate * batch_size / 256
    start = peak * config.warmup_start
    if plan.drops:
        warmup = optax.linear_schedule(start if plan.warmup_steps else peak, peak, max(plan.warmup_steps, 1))
        decay = optax.piecewise_constant_schedule(1.0, dict.fromkeys(plan.drops, 0.1))
        parts = [warmup, decay]
    else:
        cosine = optax.warmup_cosine_decay_schedule(
            init_value=start,
            peak_value=peak,
            warmup_steps=plan.warmup_steps,
            decay_steps=plan.total_steps,
            end_value=config.end_learning_rate,
        )
        parts = [cosine]

    def schedule(step: Any) -> jax.Array:
        at = jnp.asarray(step, jnp.float32)  # strict promotion lets no integer meet optax's floats
        return jnp.prod(jnp.stack([jnp.asarray(part(at)) for part in parts]))

    return schedule
