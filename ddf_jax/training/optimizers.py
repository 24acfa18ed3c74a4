"""The update rules that a recipe may name, made of optax's, with the options that all of them share."""

import dataclasses
import fnmatch
import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ddf_jax.checkpoints.backbone import BACKBONE
from ddf_jax.checkpoints.fitting import HEAD
from ddf_jax.errors import UserError, one_line
from ddf_jax.registered import nearest
from ddf_jax.training.leaves import leaf_name, leaf_names
from ddf_jax.training.norms import squared_norms
from ddf_jax.training.optimizer_config import OPTIMIZERS, OptimizerConfig, register_optimizer


def make_optimizer(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that a recipe names, of clipped gradients.

    Its steps are multiplied by `backbone_factor` in the backbone (`of_backbone`), and by `layer_decay` for each block
    behind a parameter (`layer_depths`), as if their learning rates were.

    A factory of optax or optax.contrib gets the learning rate and, as `momentum`, `nesterov`, `b1`, `b2`, `eps`,
    `weight_decay` and `mask`, the fields that differ from the recipe's defaults. Its own defaults hold for the others.

    Raises:
        UserError: nothing has the name, or a factory has no argument for one of these fields.
    """
    rule = _rule(config, learning_rate)
    if config.clip_norm:
        rule = _of_clipped(rule, config.clip_norm)
    factors: list[Callable[[list[str]], list[float]]] = []
    if config.backbone_factor != 1.0:
        factors.append(lambda names: [config.backbone_factor if n in set(of_backbone(names)) else 1.0 for n in names])
    if config.layer_decay != 1.0:
        factors.append(lambda names: [config.layer_decay**behind for behind in layer_depths(names)])
    return optax.chain(rule, *map(_scale, factors)) if factors else rule


@register_optimizer
def sgd(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Stochastic gradient descent exactly as `torch.optim.SGD` does it, weight decay included.

        d = g + λ·w;  v = μ·v + d;  w = w - rate(t) · v        (nesterov: w - rate(t) · (d + μ·v))

    The decay λ is L2 added to the gradient, ahead of the momentum μ. Without `decay_norm_and_bias` it spares parameters
    of one dimension: norm scales, biases and the learned scale of a filter norm.
    """
    return optax.chain(_decay(config), optax.sgd(learning_rate, momentum=config.momentum, nesterov=config.nesterov))


@register_optimizer
def adam(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam exactly as `torch.optim.Adam` does it, weight decay included: λ·w is added to the gradient.

        d = g + λ·w;  m = β₁·m + (1 - β₁)·d;  v = β₂·v + (1 - β₂)·d²
        w = w - rate(t) · m / (1 - β₁ᵗ) / (√(v / (1 - β₂ᵗ)) + ε)

    Reference: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    """
    b1, b2 = config.betas
    rule = optax.adam(learning_rate, b1=b1, b2=b2, eps=config.epsilon or 1e-8)
    return _promoting(optax.chain(_decay(config), rule))


@register_optimizer
def adamw(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """Adam's step of the gradient g alone, to which λ·w is added, as `torch.optim.AdamW`.

    Reference: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """
    b1, b2 = config.betas
    decay: dict[str, Any] = {"weight_decay": config.weight_decay, "mask": _decayed(config)}
    return _promoting(optax.adamw(learning_rate, b1=b1, b2=b2, eps=config.epsilon or 1e-8, **decay))


@register_optimizer
def lamb(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW's step d, with the norm of its parameter: w = w - rate(t) · d · |w| / |d|, where neither norm is 0.

    Reference: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 Minutes", ICLR 2020.
    """
    b1, b2 = config.betas
    decay: dict[str, Any] = {"weight_decay": config.weight_decay, "mask": _decayed(config)}
    return _promoting(optax.lamb(learning_rate, b1=b1, b2=b2, eps=config.epsilon or 1e-6, **decay))


@register_optimizer
def rmsprop(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    """RMSprop with momentum exactly as `torch.optim.RMSprop` does it, α = `betas[1]`.

        d = g + λ·w;  v = α·v + (1 - α)·d²;  b = μ·b + d / (√v + ε);  w = w - rate(t) · b

    Reference: Tieleman and Hinton, "Lecture 6.5: RMSprop", 2012.
    """
    scale = optax.scale_by_rms(decay=config.betas[1], eps=config.epsilon or 1e-8, eps_in_sqrt=False)
    rate = optax.scale_by_learning_rate(learning_rate)
    return optax.chain(_decay(config), scale, optax.trace(config.momentum), rate)


def of_backbone(parameters: Collection[str]) -> list[str]:
    """The names that are of a detector's backbone (`backbone.…`), or else all outside the head of a classifier.

    >>> of_backbone(["backbone.stem.conv.kernel", "neck.0.kernel"]), of_backbone(["stem.conv.kernel", "head.kernel"])
    (['backbone.stem.conv.kernel'], ['stem.conv.kernel'])
    """
    return [name for name in parameters if name.startswith(BACKBONE)] or [
        name for name in parameters if not name.startswith(HEAD)
    ]


def layer_depths(parameters: Collection[str]) -> list[int]:
    """For each name the residual blocks between it and the head, the head's own being 0.

    Blocks are `stages.i.j` in their order, the stem lies before the first of them, and all else behind the last.

    >>> layer_depths(["stem.conv.kernel", "stages.0.0.conv1.kernel", "stages.0.1.conv1.kernel", "head.kernel"])
    [3, 2, 1, 0]
    """
    blocks = {name: tuple(map(int, found.groups())) for name in parameters if (found := _BLOCK.match(name))}
    order = {block: number for number, block in enumerate(sorted(set(blocks.values())), 1)}
    stem = tuple(f"{prefix}stem." for prefix in ("", BACKBONE))
    last = len(order) + 1
    return [
        last - (order[blocks[name]] if name in blocks else 0 if name.startswith(stem) else last) for name in parameters
    ]


def clip(gradients: optax.Updates, limit: float) -> optax.Updates:
    """Gradients times min(1, limit / (norm + 10⁻⁶)), norm that of all together, as `torch.nn.utils.clip_grad_norm_`."""
    factor = jnp.minimum(1.0, limit / (jnp.sqrt(jnp.sum(squared_norms(jax.tree.leaves(gradients)))) + 1e-6))
    return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)


def _rule(config: OptimizerConfig, learning_rate: optax.Schedule) -> optax.GradientTransformation:
    name = str(config.method)
    if name in OPTIMIZERS:
        factory = OPTIMIZERS.get(name)
    else:
        found = (getattr(place, name, None) for place in (optax, optax.contrib))
        factory = next((each for each in found if inspect.isfunction(each) and _takes_rate_alone(each)), None)
    if factory is None:
        raise UserError(
            f"`optimizer.method` must be {', '.join(OPTIMIZERS.names())}, or the name of a factory of optax, such as "
            f"lion, got {name!r}.{nearest(name, OPTIMIZERS.names())}"
        )
    if not _takes_rate_alone(factory):
        return factory(config, learning_rate)
    if name.startswith("schedule_free"):
        raise UserError(f"`optimizer.method` must be a rule whose parameters are those to evaluate, got {name}.")
    arguments, known = _factory_arguments(config), inspect.signature(factory).parameters
    if missing := [argument for argument in arguments if argument not in known]:
        raise UserError(
            f"`optimizer`: optax's {name} has no argument {' or '.join(missing)}, which the recipe gives. Leave that "
            f"field at its default, or register a function that makes the rule."
        )
    try:
        rule = _promoting(factory(learning_rate, **arguments))
        jax.eval_shape(lambda leaf: rule.update(leaf, rule.init(leaf), leaf), {"w": jnp.zeros((2, 2))})
    except (TypeError, ValueError) as error:  # it needs more than gradients and parameters
        raise UserError(f"`optimizer.method` must step by gradients alone, got {name}: {one_line(error)}.") from error
    return rule


def _takes_rate_alone(factory: Callable[..., Any]) -> bool:
    """Whether it is a factory as optax has them."""
    return next(iter(inspect.signature(factory).parameters), None) == "learning_rate"


def _factory_arguments(config: OptimizerConfig) -> dict[str, Any]:
    b1, b2 = config.betas
    values = {
        "momentum": {"momentum": config.momentum},
        "nesterov": {"nesterov": config.nesterov},
        "betas": {"b1": b1, "b2": b2},
        "epsilon": {"eps": config.epsilon},
        "weight_decay": {"weight_decay": config.weight_decay},
        "decay_norm_and_bias": {"mask": _decayed(config)},
        "no_decay": {"mask": _decayed(config)},
    }
    changed = {field.name for field in dataclasses.fields(config) if getattr(config, field.name) != field.default}
    return {name: value for field in values if field in changed for name, value in values[field].items()}


_BLOCK = re.compile(rf"(?:{re.escape(BACKBONE)})?stages\.(\d+)\.(\d+)\.")


def _decay(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay, mask=_decayed(config))


def _decayed(config: OptimizerConfig) -> Callable[[optax.Params], Any] | None:
    """Which parameters the weight decay reaches; None for all."""

    def decays(path: Any, parameter: Any) -> bool:
        reached = config.decay_norm_and_bias or parameter.ndim > 1
        return reached and not any(fnmatch.fnmatchcase(leaf_name(path), pattern) for pattern in config.no_decay)

    if config.decay_norm_and_bias and not config.no_decay:
        return None
    return lambda parameters: jax.tree.map_with_path(decays, parameters)


def _promoting(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    def update(*arguments: Any, **others: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of its integer step
            return rule.update(*arguments, **others)

    return optax.GradientTransformation(rule.init, update)


def _of_clipped(rule: optax.GradientTransformation, limit: float) -> optax.GradientTransformation:
    """`rule` of clipped gradients. Its state is the same, so that a run may be resumed with another limit or none."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> Any:
        return rule.update(clip(updates, limit), state, params)

    return optax.GradientTransformation(rule.init, update)


def _scale(factors: Callable[[list[str]], list[float]]) -> optax.GradientTransformation:
    def scale(updates: optax.Updates, _: Any) -> optax.Updates:
        names = leaf_names(updates)
        of_leaf = dict(zip(names, factors(names), strict=True))
        return jax.tree.map_with_path(lambda path, leaf: leaf * of_leaf[leaf_name(path)], updates)

    return optax.stateless(scale)
