"""The protocol of a task: everything about a run that depends on what its model learns.

A task is one file with one frozen dataclass, the run's `Recipe.task`. The loop, its compiled steps and its reports are
the same for every task.
"""

import abc
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from ddf_jax.data.info import DataInfo

if TYPE_CHECKING:  # grain is not needed to build a training step
    from ddf_jax.data.sources import Examples

Batch = Mapping[str, jax.Array]
"""Arrays [B, …] by name: those of the task's `batch_spec`, `mask` [B] bool (false: padding) among them."""

Model = Callable[..., jax.Array]

Scores = dict[str, Any]
"""Results of an evaluation by their names in `metrics.jsonl` and `summary.json`: `test_…`."""


EMA = "ema_"
"""The prefix of the scores of averaged weights."""


class StepMetrics(NamedTuple):
    """Loss and metric of a training batch, and what is wrong with the batch."""

    loss: jax.Array  # []
    metric: jax.Array | None  # [], `Task.metric`; None where a training batch has none
    invalid: dict[str, jax.Array]  # "labels outside the model's classes" -> [] bool, whether the batch has any
    losses: Mapping[str, jax.Array] = {}  # [] each, what the loss is the sum of, where it is one


class Task(abc.ABC):
    """One task with its options. A subclass is a frozen dataclass whose fields become `--task.…` options."""

    metric: ClassVar[str]
    """Name of the metric that people read: `train_<metric>` and `test_<metric>`."""
    higher_is_better: ClassVar[bool] = True
    """Whether a greater metric is a better one."""
    model_task: ClassVar[str]
    """`task` of the registered models that fit."""
    inputs: ClassVar[tuple[str, ...]] = ("image",)
    """Arrays of a batch that the model is called with."""
    used_by: ClassVar[str] = "`ddf predict` or `ddf_jax.predict`"
    """The command and the function that use a trained model on a user's own images."""
    per_example: ClassVar[bool] = False
    """Whether `eval_sums` gives arrays [B, …] with the results of each example instead of sums: `results` and `score`
    then take the place of `finalize`."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages beyond those of the extra `train` that an evaluation imports."""

    splits_height: ClassVar[bool] = True
    """Whether devices may share the rows of an image (`mesh.height`)."""

    def check(self, *, training: bool = False) -> None:
        """Raises before a training, or an evaluation, what it would end with otherwise.

        Raises:
            ModuleNotFoundError: one of `packages` is missing.
            UserError: nothing is registered under a name that the task has.
        """
        del training
        for package in self.packages:
            importlib.import_module(package)

    def check_batch_size(self, batch_size: int) -> None:
        """Raises `UserError` for a batch that the task cannot train on."""
        del batch_size

    @abc.abstractmethod
    def examples(self) -> "Examples":
        """The kind of examples that the task reads."""

    @abc.abstractmethod
    def model_options(self, info: DataInfo) -> dict[str, Any]:
        """Options that a model gets from the data, such as its number of classes."""

    @abc.abstractmethod
    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of one example's arrays."""

    def variants(self) -> Sequence["Task"]:
        """The task for each shape that a batch can have: more than one where its examples are `Grouped`."""
        return (self,)

    def augmented(self, batch: Batch, key: jax.Array) -> Batch:
        """A training batch after what is drawn for all of its examples together, such as mixup; `key` is the step's."""
        del key
        return batch

    @abc.abstractmethod
    def step_metrics(self, model: Model, batch: Batch, progress: jax.Array) -> StepMetrics:
        """Loss and metric over the real examples of a training batch; `progress` [] is the share of steps taken."""

    @abc.abstractmethod
    def eval_sums(self, model: Model, batch: Batch) -> Any:
        """Scalar sums over the real examples of an evaluation batch, a named tuple with their number as `examples`."""

    def finalize(self, sums: Any) -> Scores:
        """Scores from `eval_sums` added up over all batches; None for a score that is not finite."""
        raise NotImplementedError

    def results(self, batch: Mapping[str, np.ndarray], outputs: Any, source: Any) -> list[dict[str, Any]]:
        """The results of the real examples of a batch, as JSON has them.

        Args:
            batch: this process's share.
            outputs: of `eval_sums`, on the host.
            source: of the examples.
        """
        raise NotImplementedError

    def score(self, results: Sequence[dict[str, Any]], source: Any) -> Scores:
        """Scores from the results of all examples, each once; `source` has what is true of them."""
        raise NotImplementedError

    @abc.abstractmethod
    def predict(self, model: Model, batch: Batch) -> Any:
        """The model's predictions [B, …] in the form that a user wants."""

    @abc.abstractmethod
    def summary_line(self, scores: Mapping[str, Any]) -> str:
        """The scores for people, the most important one first."""

    def score_table(self, scores: Mapping[str, Any], info: DataInfo) -> str:
        """All scores for people in lines of their own; empty where `summary_line` has them all."""
        del scores, info
        return ""


@runtime_checkable
class DrawsPicture(Protocol):
    """A task whose evaluations leave a picture in the run's folder."""

    def draw(self, batch: Mapping[str, np.ndarray], prediction: Any, info: DataInfo) -> bytes:
        """The first examples of a batch and the predictions for them, as PNG; `info` has the names of the classes."""
        ...


@runtime_checkable
class DrawsScores(Protocol):
    """A task whose scores may be drawn."""

    def draw_scores(self, scores: Mapping[str, Any], info: DataInfo) -> bytes | None:
        """The scores of an evaluation as PNG, or None; `info` has the names of the classes."""
        ...


def numbers(scores: Scores) -> Scores:
    """Those of the scores that have a place in `metrics.jsonl`: no matrices.

    >>> numbers({"test_accuracy": 0.5, "test_confusion": [[1, 0], [1, 0]]})
    {'test_accuracy': 0.5}
    """
    return {name: score for name, score in scores.items() if not isinstance(score, list)}


def summary_line(task: Task, scores: Mapping[str, Any]) -> str:
    """The scores for people, and those of the averaged weights where there are some."""
    averaged = {name.removeprefix(EMA): score for name, score in scores.items() if name.startswith(EMA)}
    line = task.summary_line(scores)
    return f"{line}; averaged weights: {task.summary_line(averaged)}" if averaged else line
