"""The fields of a recipe that decide how its parameters are updated."""

import dataclasses
import math

from ddf_jax.errors import UserError
from ddf_jax.registered import Named, Registry

OPTIMIZERS = Registry("optimizer")
"""Update rules `(config, learning_rate: optax.Schedule) -> optax.GradientTransformation` by name; `optimizers` has the
first of them."""

register_optimizer = OPTIMIZERS.register


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An update rule, with linear warm-up and cosine decay or decay by tenths. The formulas are in `optimizers`."""

    method: Named = "sgd"
    """sgd, adam, adamw, lamb, rmsprop; a factory of optax or optax.contrib, such as lion; or a function
    `(config, learning_rate) -> optax.GradientTransformation`."""
    learning_rate: float = 0.1
    """Peak learning rate per 256 examples of the global batch."""
    end_learning_rate: float = 1e-5
    """Learning rate at the end of the cosine, not scaled by the batch size."""
    drops: tuple[float, ...] = ()
    """Epochs after each of which the learning rate is divided by ten, instead of the cosine."""
    warmup_epochs: float = 5.0
    warmup_start: float = 0.0
    """Share of the peak learning rate at the first step of the warm-up."""
    momentum: float = 0.9
    """Of SGD and RMSprop."""
    nesterov: bool = False
    """Of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decays of the means of gradients and of their squares: both of Adam, AdamW and LAMB, the second of RMSprop."""
    epsilon: float | None = None
    """Added to the root of the mean square; default: 1e-8, of LAMB 1e-6."""
    weight_decay: float = 1e-4
    """λ: of SGD, Adam and RMSprop L2 added to the gradient (as in the papers), of AdamW and LAMB added to the step."""
    decay_norm_and_bias: bool = True
    """Whether the weight decay also reaches norm scales and biases (the papers' recipes do)."""
    no_decay: tuple[str, ...] = ()
    """Shell patterns of parameters that the weight decay does not reach, such as `*.spatial_branch.*`."""
    backbone_factor: float = 1.0
    """Multiplies the learning rate of a detector's backbone (`backbone.…`), of a classifier's all but its head."""
    layer_decay: float = 1.0
    """Multiplies the learning rate once for each residual block between a parameter and the head."""
    clip_norm: float = 0.0
    """The most that the norm of all gradients together may be, before the weight decay is added; 0: no limit."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", OPTIMIZERS.name(self.method))
        if not 0.0 <= self.clip_norm < math.inf:
            raise UserError(f"`clip_norm` must be a number from 0 on, 0 for no limit, got {self.clip_norm}.")
        if not 0.0 <= self.warmup_start <= 1.0:
            raise UserError(f"`warmup_start` must be a share of the learning rate in [0, 1], got {self.warmup_start}.")
        if not 0.0 < self.backbone_factor < math.inf:
            raise UserError(
                f"`backbone_factor` must be a positive number, got {self.backbone_factor}; `freeze` stops parameters."
            )
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"`layer_decay` must be in (0, 1], got {self.layer_decay}.")
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise UserError(f"`betas` must be two numbers in [0, 1), got {self.betas}.")
        if self.epsilon is not None and not 0.0 < self.epsilon < math.inf:
            raise UserError(f"`epsilon` must be a positive number, got {self.epsilon}.")
        if isinstance(self.no_decay, str):
            raise UserError(f"`no_decay` must be a tuple of patterns, got the string {self.no_decay!r}.")
