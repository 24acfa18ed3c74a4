"""A recipe: everything that decides a training run, as one frozen value; `recipe_json` is its form in files.

Durations are in epochs and learning rates per 256 examples, so that a recipe survives another batch size. A variant is
`dataclasses.replace` of a base; the command line overrides any field (`--optimizer.learning-rate 0.2`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import UserError
from ddf_jax.training.tasks import Task
from ddf_jax.training.tasks.classification import Classification

Option = int | float | str | bool | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A registered model, and the options that differ from its own."""

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
    """Learning rate at the end of the cosine, not scaled by the batch size."""
    drops: tuple[float, ...] = ()
    """Epochs after each of which the learning rate is divided by ten, instead of the cosine."""
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
    task: Task = dataclasses.field(default_factory=Classification)
    """What the model learns, with the options of that task."""
    epochs: float = 120.0
    batch_size: int = 256
    """Examples per step over all devices."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; parameters and statistics are kept in float32."""
    seed: int = 0
    evaluate_every: float = 1.0
    """Epochs between two evaluations; 0: only at the end."""
    checkpoint_every: float = 1.0
    """Epochs between two checkpoints; 0: only at the end."""
    log_every: int = 10
    """Steps between two rows of `metrics.jsonl`."""
    checkpoint_minutes: float = 0.0
    """Minutes after which a checkpoint is made too, whatever the epoch; 0: never for that reason."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept."""
    keep_every: float = 0.0
    """Epochs of which each interval's first checkpoint is kept; 0: none."""
    keep_best: int = 1
    """Checkpoints that are kept as those with the best test score, of those that were evaluated at their own step."""

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "/" in self.name or "\\" in self.name:
            raise UserError(f"`name` must be the name of a folder, without separators, got {self.name!r}.")
        for field, least in _AT_LEAST.items():
            if not getattr(self, field) >= least:
                raise UserError(f"`{field}` must be at least {least}, got {getattr(self, field)}.")
        if not 0.0 < self.epochs < float("inf"):
            raise UserError(f"`epochs` must be a positive number, got {self.epochs}.")


_AT_LEAST = {
    "batch_size": 1,
    "seed": 0,
    "evaluate_every": 0,
    "checkpoint_every": 0,
    "checkpoint_minutes": 0,
    "log_every": 1,
    "keep_checkpoints": 1,
    "keep_every": 0,
    "keep_best": 0,
}
