"""From a recipe's epochs and rates per 256 examples to steps, a learning rate per step and an optimizer."""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ddf_jax.checkpoints.backbone import BACKBONE
from ddf_jax.checkpoints.fitting import HEAD
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError
from ddf_jax.training.norms import squared_norms
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


def make_optimizer(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that a recipe names, of clipped gradients; in the backbone (`of_backbone`) its steps are multiplied
    by `backbone_factor`."""
    rule = {"sgd": sgd, "adam": adam}[config.method](config, learning_rate)
    if config.clip_norm:
        rule = _of_clipped(rule, config.clip_norm)
    return rule if config.backbone_factor == 1.0 else optax.chain(rule, _scale_backbone(config.backbone_factor))


def of_backbone(parameters: Collection[str]) -> list[str]:
    """The names that are of a detector's backbone (`backbone.…`), or else all outside the head of a classifier.

    >>> of_backbone(["backbone.stem.conv.kernel", "neck.0.kernel"]), of_backbone(["stem.conv.kernel", "head.kernel"])
    (['backbone.stem.conv.kernel'], ['stem.conv.kernel'])
    """
    return [name for name in parameters if name.startswith(BACKBONE)] or [
        name for name in parameters if not name.startswith(HEAD)
    ]


def clip(gradients: optax.Updates, limit: float) -> optax.Updates:
    """Gradients times min(1, limit / (norm + 10⁻⁶)), norm that of all together, as `torch.nn.utils.clip_grad_norm_`."""
    factor = jnp.minimum(1.0, limit / (jnp.sqrt(jnp.sum(squared_norms(jax.tree.leaves(gradients)))) + 1e-6))
    return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)


def sgd(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Stochastic gradient descent exactly as `torch.optim.SGD` does it, weight decay included.

        d = g + λ·w;  v = μ·v + d;  w = w - rate(t) · v        (nesterov: w - rate(t) · (d + μ·v))

    The decay λ is L2 added to the gradient, ahead of the momentum μ. Without `decay_norm_and_bias` it spares parameters
    of one dimension: norm scales, biases and the learned scale of a filter norm.
    """
    mask = None if config.decay_norm_and_bias else _more_than_one_dimension
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=mask),
        optax.sgd(learning_rate, momentum=config.momentum, nesterov=config.nesterov),
    )


def adam(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam exactly as `torch.optim.Adam` does it, weight decay included: λ·w is added to the gradient.

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """
    mask = None if config.decay_norm_and_bias else _more_than_one_dimension
    rule = optax.chain(optax.add_decayed_weights(config.weight_decay, mask=mask), optax.adam(learning_rate))

    def update(*arguments: Any, **others: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer step
            return rule.update(*arguments, **others)

    return optax.GradientTransformation(rule.init, update)


def _of_clipped(rule: optax.GradientTransformation, limit: float) -> optax.GradientTransformation:
    """`rule` of clipped gradients. Its state is the same, so that a run may be resumed with another limit or none."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Any:
        return rule.update(clip(updates, limit), state, params)

    return optax.GradientTransformation(rule.init, update)


def _scale_backbone(factor: float) -> optax.GradientTransformation:
    def name(path: Any) -> str:
        return jax.tree_util.keystr(path, simple=True, separator=".")

    def scale(updates: optax.Updates, _: Any) -> optax.Updates:
        scaled = set(of_backbone([name(path) for path, _ in jax.tree.leaves_with_path(updates)]))
        return jax.tree.map_with_path(lambda path, leaf: leaf * factor if name(path) in scaled else leaf, updates)

    return optax.stateless(scale)


def _more_than_one_dimension(parameters: optax.Params) -> optax.Params:
    return jax.tree.map(lambda parameter: parameter.ndim > 1, parameters)
