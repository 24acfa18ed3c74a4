import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.confusion import draw_confusion
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.evaluate import evaluate_batches
from ddf_jax.training.losses import (
    METRICS,
    binary_cross_entropy,
    cross_entropy,
    masked_mean,
    register_metric,
    soft_targets,
)
from ddf_jax.training.tasks import numbers
from ddf_jax.training.tasks.classification import Classification

START = jnp.float32(0)
RNG = np.random.default_rng(0)
LOGITS, LABELS, OTHERS = RNG.normal(size=(6, 7)) * 20, RNG.integers(0, 7, 6), RNG.integers(0, 7, 6)
MASK = np.array([True, True, True, True, True, False])


def identity(image: jax.Array) -> jax.Array:
    return image


def log_softmax(logits: np.ndarray) -> np.ndarray:
    log_p = logits - logits.max(1, keepdims=True)
    return log_p - np.log(np.exp(log_p).sum(1, keepdims=True))


def batch(**others: Any) -> dict[str, Any]:
    return {"image": jnp.float32(LOGITS), "label": jnp.int32(LABELS), "mask": jnp.array(MASK), **others}


def step(task: Classification, **others: Any) -> Any:
    return jax.jit(lambda batch: task.step_metrics(identity, batch, START))(batch(**others))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_smoothed_cross_entropy_in_float64(smoothing: float):
    targets = np.eye(7)[LABELS] * (1 - smoothing) + smoothing / 7
    expected = -(targets * log_softmax(LOGITS)).sum(1)
    loss = cross_entropy(jnp.float32(LOGITS), soft_targets(jnp.asarray(LABELS), 7, smoothing=smoothing))
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    found = step(Classification(label_smoothing=smoothing))
    assert float(found.loss) == pytest.approx(expected[MASK].mean(), rel=1e-6)
    assert float(found.metric) == pytest.approx((LOGITS.argmax(1) == LABELS)[MASK].mean())


def test_mixed_labels_share_the_loss_and_the_metric():
    mix = {"other_label": jnp.int32(OTHERS), "share": jnp.full(6, 0.7)}
    found = step(Classification(label_smoothing=0.1), **mix)
    targets = 0.9 * (0.7 * np.eye(7)[LABELS] + 0.3 * np.eye(7)[OTHERS]) + 0.1 / 7
    assert float(found.loss) == pytest.approx(-(targets * log_softmax(LOGITS)).sum(1)[MASK].mean(), rel=1e-6)
    best = LOGITS.argmax(1)
    assert float(found.metric) == pytest.approx((0.7 * (best == LABELS) + 0.3 * (best == OTHERS))[MASK].mean())


def test_the_binary_loss_takes_every_class_of_a_mixed_label_as_present():
    mix = {"other_label": jnp.int32(OTHERS), "share": jnp.full(6, 0.7)}
    found = step(Classification(loss="binary_cross_entropy", target_threshold=0.2), **mix)
    present = np.maximum(np.eye(7)[LABELS], np.eye(7)[OTHERS])
    losses = (np.logaddexp(0, LOGITS) - present * LOGITS).mean(1)
    assert float(found.loss) == pytest.approx(losses[MASK].mean(), rel=1e-6)
    soft = RNG.random((6, 7))
    expected = (np.logaddexp(0, LOGITS) - soft * LOGITS).mean(1)
    np.testing.assert_allclose(binary_cross_entropy(jnp.float32(LOGITS), jnp.float32(soft)), expected, rtol=1e-5)


def test_class_weights_give_a_weighted_mean():
    weights = tuple(float(weight) for weight in range(7))
    of_examples = np.array(weights)[LABELS] * MASK
    losses = -log_softmax(LOGITS)[np.arange(6), LABELS]
    expected = (of_examples * losses).sum() / of_examples.sum()
    assert float(step(Classification(class_weights=weights)).loss) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UserError, match="a number for each of the 7 classes, got 2"):
        Classification(class_weights=(1.0, 2.0)).model_options(DataInfo(7, tuple("abcdefg"), 3, 8, 8, 8))


def test_a_loss_and_metrics_of_ones_own_have_their_functions_names():
    def focal(logits: jax.Array, targets: jax.Array) -> jax.Array:
        p = jax.nn.softmax(logits)
        return -((1 - p) ** 2 * targets * jax.nn.log_softmax(logits)).sum(-1)

    @register_metric
    def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return logits[jnp.arange(len(labels)), labels] - logits.mean(-1)

    task = Classification(loss=focal, metrics=(margin,))
    assert (task.loss, task.metrics) == ("focal", ("margin",))
    assert task == Classification(loss="focal", metrics=("margin",))
    p = np.exp(log_softmax(LOGITS))[np.arange(6), LABELS]
    expected = -((1 - p) ** 2 * log_softmax(LOGITS)[np.arange(6), LABELS])
    assert float(step(task).loss) == pytest.approx(expected[MASK].mean(), rel=1e-5)
    scores = task.finalize(task.eval_sums(identity, batch()))
    margins = LOGITS[np.arange(6), LABELS] - LOGITS.mean(1)
    assert scores["test_margin"] == pytest.approx(margins[MASK].mean(), rel=1e-5)
    assert ", margin " in task.summary_line(scores)
    del METRICS.entries["margin"]
    with pytest.raises(UserError, match=r"There is no metric named 'margin'. There are none."):
        task.check()
    with pytest.raises(UserError, match=r"no loss named 'cross_entrpy'. Did you mean 'cross_entropy' or 'binary"):
        Classification(loss="cross_entrpy").check(training=True)
    Classification(loss="of_another_file").check()  # an evaluation does not need it
    with pytest.raises(UserError, match=r"A loss must be a function or a class with a name, got functools.partial"):
        Classification(loss=functools.partial(focal))


def test_the_confusion_matrix_counts_real_examples_by_label_and_prediction():
    task, names = Classification(confusion_matrix=True), tuple("abcdefg")
    info = DataInfo(7, names, channels=1, train_size=6, eval_size=6, image_size=1)
    mesh = data_mesh(jax.devices()[:1])
    batches = [batch(), batch(label=jnp.int32(OTHERS))]
    scores = evaluate_batches(jax.jit(lambda _, batch: task.eval_sums(identity, batch)), None, batches, mesh, task=task)
    expected = np.zeros((7, 7), int)
    for labels in (LABELS, OTHERS):
        np.add.at(expected, (labels[MASK], LOGITS.argmax(1)[MASK]), 1)
    assert scores
    assert scores["test_confusion"] == expected.tolist()
    assert numbers(scores).keys() == scores.keys() - {"test_confusion"}
    table = task.score_table(scores, info).splitlines()
    assert [line.split()[:2] for line in table[1:]] == [
        [n, str(row.sum())] for n, row in zip(names, expected, strict=True)
    ]
    assert task.draw_scores(scores, info) == draw_confusion(expected.tolist(), names)
    assert Classification().draw_scores({}, info) is None
    assert Classification().score_table({}, info) == ""


def test_half_precision_logits_are_summed_in_float32():
    logits = jax.random.normal(jax.random.key(0), (4, 1000)).astype(jnp.bfloat16)
    targets = soft_targets(jnp.arange(4), 1000)
    for loss in (cross_entropy, binary_cross_entropy):
        found = loss(logits, targets)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, loss(logits.astype(jnp.float32), targets), rtol=1e-6)


def test_the_mean_is_over_real_examples_only():
    values = jnp.array([1.0, 2.0, 1000.0])
    assert float(masked_mean(values, jnp.array([True, True, False]))) == 1.5
    assert float(masked_mean(values, jnp.zeros(3, bool))) == 0.0


def test_predictions_are_probabilities_in_float32():
    logits = jnp.array([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], jnp.bfloat16)
    found = Classification().predict(identity, {"image": logits})
    assert found.dtype == jnp.float32
    expected = np.exp([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": -0.1}, r"`label_smoothing` must be in \[0, 1\), got -0.1"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must be in \[0, 1\), got 1.0"),
        ({"mixup": -1.0}, "`mixup` must be α of a Beta distribution, 0 for none, got -1.0"),
        ({"mix_probability": 1.5}, r"`mix_probability` must be in \[0, 1\], got 1.5"),
        ({"target_threshold": -0.5}, r"`target_threshold` must be in \[0, 1\], got -0.5"),
        ({"class_weights": (1.0, -1.0)}, "`class_weights` must be numbers from 0 on"),
        ({"metrics": ("accuracy",)}, "`metrics` must have other names than the scores of every .* got accuracy"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Classification(**options)
