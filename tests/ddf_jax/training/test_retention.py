"""Which checkpoints are kept."""

from pathlib import Path

import pytest

from ddf_jax.errors import RunError
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.retention import Retention, Score
from tests.ddf_jax.training.test_checkpoint import trees


def test_one_is_kept_as_the_newest_the_first_of_an_interval_or_the_best():
    errors = {4: 3.0, 8: 1.0, 12: 2.0, 16: None, 21: 1.0, 25: 0.5, 29: 5.0}
    rmse, accuracy = Score("test_rmse", higher_is_better=False), Score("test_accuracy", higher_is_better=True)
    assert Retention(newest=2).kept(errors) == {25, 29}
    assert Retention(newest=1, every=10).kept(errors) == {12, 21, 29}
    assert Retention(newest=1, best=2, score=rmse).kept(errors) == {21, 25, 29}
    assert Retention(newest=1, best=2, score=accuracy).kept(errors) == {4, 29}


def test_the_best_is_the_best_evaluated_at_its_own_step(tmp_path: Path):
    rmse = Score("test_rmse", higher_is_better=False)
    checkpoints, kept = Checkpoints(tmp_path), Retention(newest=1, best=2, score=rmse)
    for step, error, evaluated_step in ((1, 2.0, 1), (2, 1.0, 2), (3, 0.5, 2), (4, None, 4)):
        checkpoints.save(step, trees(), {"evaluation": {"test_rmse": error}, "evaluated_step": evaluated_step}, kept)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [1, 2, 4]
    assert checkpoints.best(rmse) == 2
    (tmp_path / "2" / "checksums.json").unlink()
    assert checkpoints.best(rmse) == 1
    with pytest.raises(
        RunError, match=r"evaluated at its own step, so none is best by test_iou; there are \[1, 2, 4\]"
    ):
        checkpoints.best(Score("test_iou", higher_is_better=True))
