"""A recipe: everything that decides a training run, as one frozen value.

Durations are in epochs and learning rates per 256 examples, so that a recipe survives another batch size. A variant is
`dataclasses.replace` of a base; the command line overrides any field (`--optimizer.learning-rate 0.2`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ddf_jax.data.config import DataConfig

Option = int | float | str | bool | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which registered model, and what differs from it."""

    name: str = "ddf_resnet50"
    """A name that `ddf models` lists."""
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    """Fields of the model's own configuration to replace, such as `{"stem": "small"}`."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """SGD with momentum or Adam, with linear warm-up and cosine decay or decay by tenths."""

    method: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    """Peak learning rate per 256 examples of the global batch."""
    end_learning_rate: float = 1e-5
    """Learning rate at the end of the cosine, as it is (not scaled by the batch)."""
    drops: tuple[float, ...] = ()
    """Epochs after each of which the learning rate is a tenth of what it was, in place of the cosine."""
    warmup_epochs: float = 5.0
    momentum: float = 0.9
    """Of SGD; Adam has β = (0.9, 0.999)."""
    nesterov: bool = False
    weight_decay: float = 1e-4
    """L2 added to the gradient (as in the papers)."""
    decay_norm_and_bias: bool = True
    """Whether the weight decay also reaches norm scales and biases (the papers' recipes do)."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training run."""

    name: str
    """Names the run's folder, `runs/<name>/`."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    epochs: float = 120.0
    batch_size: int = 256
    """Examples per step over all devices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters and statistics are kept in float32."""
    label_smoothing: float = 0.0
    depth_loss: Literal["rmse", "charbonnier"] = "rmse"
    """Of the errors in metres: the root of their mean square; or a mean that counts the squares of errors below ε and
    the absolute values of those above, with ε from 1 cm at the first step, geometrically, to 1 m at the last."""
    seed: int = 0
    evaluate_every: float = 1.0
    """Epochs between two evaluations; 0: only at the end."""
    checkpoint_every: float = 1.0
    """Epochs between two checkpoints; 0: only at the end."""
    log_every: int = 10
    """Steps between two rows of `metrics.jsonl`."""
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        for field, least in _AT_LEAST.items():
            if not getattr(self, field) >= least:
                raise ValueError(f"`{field}` must be at least {least}, got {getattr(self, field)}.")
        if not 0.0 < self.epochs < float("inf"):
            raise ValueError(f"`epochs` must be a positive number, got {self.epochs}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"`label_smoothing` must be in [0, 1), got {self.label_smoothing}.")


_AT_LEAST = {
    "batch_size": 1,
    "seed": 0,
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "log_every": 1,
    "keep_checkpoints": 1,
}
