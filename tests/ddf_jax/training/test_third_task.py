"""A task that the package does not know goes through the real loop: recipe, data, checkpoint, resume, evaluation."""

import signal
from pathlib import Path

import jax
import pytest

from ddf_jax.cli.arguments import parse
from ddf_jax.cli.train import TrainCommand
from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError, StoppedError
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.recipe import TASKS, ModelConfig, OptimizerConfig, Recipe, recipe_from_json, recipe_to_json
from ddf_jax.training.run import load_run
from ddf_jax.training.train import train
from tests.ddf_jax.training.launch import signal_self
from tests.ddf_jax.training.processes import metrics, saved_bits
from tests.ddf_jax.training.regression import Regression

RECIPE = Recipe(
    "sums",
    model=ModelConfig("resnet18", {"stem": "small", "width": 4, "blocks": (1,)}),
    data=DataConfig(image_size=4),
    optimizer=OptimizerConfig(learning_rate=0.1, warmup_epochs=0),
    task=Regression(power=1.5),
    epochs=1,  # 6 steps
    batch_size=8,
    checkpoint_every=0.5,
    log_every=1,
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "regression", Regression)


@pytest.mark.usefixtures("compiled_once")
def test_a_third_task_trains_is_stopped_resumed_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    device = jax.devices()[:1]
    summary = train(RECIPE, tmp_path / "unbroken", devices=device)
    assert (summary["steps"], summary["test_examples"]) == (6, 20)
    assert not (tmp_path / "unbroken" / "pictures").exists()
    rows = metrics(tmp_path / "unbroken")
    assert [row["step"] for row in rows if "train_mae" in row] == list(range(1, 7))
    assert rows[-1]["test_mae"] == summary["test_mae"]

    with monkeypatch.context() as patch:
        signal_self(patch, signal.SIGTERM, "step:4")
        with pytest.raises(StoppedError):
            train(RECIPE, tmp_path / "resumed", devices=device)
    assert train(RECIPE, tmp_path / "resumed", devices=device)["test_mae"] == summary["test_mae"]
    assert saved_bits(tmp_path / "resumed", 6) == saved_bits(tmp_path / "unbroken", 6)

    run = load_run(tmp_path / "resumed", devices=device)
    assert evaluate(run)["test_mae"] == pytest.approx(summary["test_mae"], rel=1e-5)
    with pytest.raises(RunError, match=r"another recipe \(task.power: 1.5 -> 2.0\)"):
        train(Recipe(**{**vars(RECIPE), "task": Regression()}), tmp_path / "resumed", devices=device)


def test_its_options_are_in_the_recipes_json_and_on_the_command_line(tmp_path: Path):
    assert '"kind": "regression"' in recipe_to_json(RECIPE)
    assert recipe_from_json(recipe_to_json(RECIPE)) == RECIPE
    file = tmp_path / "sums.py"
    file.write_text(
        "from ddf_jax.training.recipe import Recipe\n"
        "from tests.ddf_jax.training.regression import Regression\n"
        "recipe = Recipe('sums', task=Regression())\n"
    )
    command = parse(["train", str(file), "--task.power", "3"])
    assert isinstance(command, TrainCommand)
    assert command.recipe.task == Regression(power=3.0)
