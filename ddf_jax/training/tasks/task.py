"""What a run learns, as one value: the loop, its steps and its reports are the same for every task."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import nnx

from ddf_jax.data.sources import DataInfo

Batch = Mapping[str, jax.Array]
"""`image` [B, H, W, C] float32, `mask` [B] bool (false: padding), and what the task's `shapes` adds."""

Scores = dict[str, Any]
"""What an evaluation found, by the names that `metrics.jsonl` and `summary.json` have for it."""


class Outcome(NamedTuple):
    """What a model's answers to a training batch are worth."""

    loss: jax.Array  # []
    quality: jax.Array  # [], what people read: the task says what it is
    faults: dict[str, jax.Array]  # what a batch must not hold -> [] bool, whether it does


class Task(Protocol):
    """A frozen value that says what the loop does not know: what a batch holds, and what answers to it are worth."""

    @property
    def quality(self) -> str:
        """What `Outcome.quality` is: `train_<quality>` and `test_<quality>` name it in the metrics."""
        ...

    @property
    def draws(self) -> bool:
        """Whether there is something to draw: where not, `answer` and `draw` are never called."""
        ...

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        """What a model is made with for data of this kind."""
        ...

    def shapes(self, info: DataInfo, *, training: bool) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape of one example and dtype of everything in a batch."""
        ...

    def outcome(self, model: nnx.Module, batch: Batch, progress: jax.Array) -> Outcome:
        """Loss and quality over the real examples of a training batch; `progress` [] is the share of steps taken."""
        ...

    def count(self, model: nnx.Module, batch: Batch) -> NamedTuple:
        """Scalar sums over the real examples of an evaluation batch, their number as `examples` among them."""
        ...

    def scores(self, totals: Any) -> Scores:
        """The sums over all batches, as `count` gives them, to `test_…`; None for what is not finite."""
        ...

    def progress(self, loss: float, quality: float) -> str:
        """For the bar."""
        ...

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The one score that counts."""
        ...

    def details(self, scores: Mapping[str, Any]) -> str:
        """The others."""
        ...

    def answer(self, model: nnx.Module, batch: Batch) -> jax.Array:
        """What a picture is drawn of, [B, …]."""
        ...

    def draw(self, batch: Mapping[str, np.ndarray], answer: np.ndarray) -> bytes:
        """The first examples of a batch beside the model's answers, as PNG."""
        ...
