import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax.errors import RunError
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.evaluate import evaluate_batches
from ddf_jax.training.step import ModelState, eval_step
from ddf_jax.training.tasks.classification import Classification

TASK = Classification()


class Logits(nnx.Module):
    """Returns the pixels of an image [1, 1, classes] as logits."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x[:, 0, 0]


def batches(logits: np.ndarray, labels: np.ndarray, batch_size: int):
    for start in range(0, len(labels), batch_size):
        real = len(labels[start : start + batch_size])
        image = np.full((batch_size, 1, 1, logits.shape[1]), np.nan, np.float32)  # padding must not even be looked at
        image[:real, 0, 0] = logits[start : start + real]
        label = np.zeros(batch_size, np.int32)
        label[:real] = labels[start : start + real]
        yield {"image": image, "label": label, "mask": np.arange(batch_size) < real}


@pytest.fixture
def step():
    structure, variables = nnx.split(Logits())
    return jax.jit(lambda _, batch: eval_step(ModelState(structure, nnx.to_pure_dict(variables)), batch, task=TASK))


@pytest.mark.parametrize("batch_size", [8, 24, 104])
def test_every_example_counts_once_for_any_batch_size(step, batch_size: int):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(101, 9)), rng.integers(0, 9, 101)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ranks = (logits > logits[np.arange(101), labels][:, None]).sum(1)
    result = evaluate_batches(step, None, batches(logits, labels, batch_size), data_mesh(), task=TASK)
    assert result is not None
    assert result["test_examples"] == 101
    assert result["test_accuracy"] == (ranks == 0).sum() / 101
    assert result["test_top5_accuracy"] == (ranks < 5).sum() / 101
    assert result["test_loss"] == pytest.approx(-log_p[np.arange(101), labels].mean(), rel=1e-5)


def test_equal_logits_are_no_better_than_the_first_class(step):
    logits, labels = np.zeros((16, 9)), np.arange(16) % 9
    result = evaluate_batches(step, None, batches(logits, labels, 8), data_mesh(), task=TASK)
    assert result is not None
    assert result["test_accuracy"] == 2 / 16


def test_an_evaluation_stops_when_asked(step):
    asked = []

    def should_stop() -> bool:
        asked.append(True)
        return len(asked) == 2

    many = batches(np.zeros((80, 9)), np.zeros(80, int), 8)
    assert evaluate_batches(step, None, many, data_mesh(), task=TASK, should_stop=should_stop) is None
    assert len(list(many)) == 8


def test_a_loss_that_overflows_is_none_and_its_accuracy_counts(step):
    logits = np.eye(9)[np.arange(16) % 9] * 3e38
    labels = np.where(np.arange(16) < 4, 0, np.arange(16) % 9)
    logits[:, 8] = -3e38
    result = evaluate_batches(step, None, batches(logits, labels, 8), data_mesh(), task=TASK)
    assert result is not None
    assert result["test_loss"] is None
    assert result["test_accuracy"] == 12 / 16


def test_nothing_to_evaluate_is_an_error(step):
    with pytest.raises(RunError, match="no example to evaluate on"):
        evaluate_batches(step, None, [], data_mesh(), task=TASK)


def test_few_classes_have_a_top_5_of_all():
    structure, variables = nnx.split(Logits())
    batch = {"image": jnp.ones((4, 1, 1, 3)), "label": jnp.array([0, 1, 2, 2]), "mask": jnp.ones(4, bool)}
    assert int(eval_step(ModelState(structure, nnx.to_pure_dict(variables)), batch, task=TASK).correct_top5) == 4
