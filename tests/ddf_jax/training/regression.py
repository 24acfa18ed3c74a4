"""A third task, outside the package: its file, its source of examples, and one line in the mapping of tasks.

The model predicts the number that an image's pixels add up to.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.data.sources import Split
from ddf_jax.training.tasks import Batch, Model, Scores, StepMetrics, Task


class Sums:
    """Small random images in memory, and the sum of each one's pixels."""

    name = "sums"
    class_names: tuple[str, ...] = ()
    channels = 1
    shape = None

    def __init__(self, seed: int, count: int, side: int) -> None:
        self.images = np.random.default_rng(seed).uniform(0, 1, (count, side, side, 1)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def describe(self, index: int) -> str:
        return f"example {index}"

    def fingerprint(self) -> dict[str, str]:
        return {"sums": str(self.images.sum())}

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "total": self.images[index].sum()}


@dataclasses.dataclass(frozen=True)
class SumExamples:
    """`{"image": float32 [H, W, 1], "total": float32 []}`."""

    def open(self, config: DataConfig, split: Split) -> Sums:
        return Sums(*{"train": (0, 48), "eval": (1, 20)}[split], config.image_size)

    def training(self, config: DataConfig, source: Sums) -> list[Any]:
        return []

    def evaluation(self, config: DataConfig, source: Sums) -> list[Any]:
        return []

    def blank(self, config: DataConfig, source: Sums) -> dict[str, Any]:
        return {"image": np.zeros_like(source.images[0]), "total": np.float32(0)}


class RegressionSums(NamedTuple):
    errors: jax.Array
    examples: jax.Array


@dataclasses.dataclass(frozen=True)
class Regression(Task):
    """Mean of |error| to a power."""

    power: float = 2.0
    """2: mean squared error."""

    metric: ClassVar[str] = "mae"
    model_task: ClassVar[str] = "classification"  # its networks with one output

    def examples(self) -> SumExamples:
        return SumExamples()

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return {"num_classes": 1, "in_channels": info.channels}

    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((info.image_size, info.image_size, info.channels), jnp.float32),
            "total": jax.ShapeDtypeStruct((), jnp.float32),
            "mask": jax.ShapeDtypeStruct((), jnp.bool),
        }

    def step_metrics(self, model: Model, batch: Batch, progress: jax.Array) -> StepMetrics:
        errors = jnp.abs(model(batch["image"])[:, 0] - batch["total"])
        return StepMetrics(loss=jnp.mean(errors**self.power), metric=jnp.mean(errors), invalid={})

    def eval_sums(self, model: Model, batch: Batch) -> RegressionSums:
        errors = jnp.abs(model(batch["image"])[:, 0] - batch["total"])
        return RegressionSums(jnp.sum(errors, where=batch["mask"]), jnp.sum(batch["mask"], dtype=jnp.int32))

    def finalize(self, sums: RegressionSums) -> Scores:
        return {"test_mae": float(sums.errors) / float(sums.examples), "test_examples": int(sums.examples)}

    def predict(self, model: Model, batch: Batch) -> jax.Array:
        return model(batch["image"])[:, 0]

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        return f"test MAE {scores['test_mae']:.2f}"
