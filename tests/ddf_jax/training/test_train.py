import dataclasses
import itertools
import math
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from ddf_jax.data import transforms
from ddf_jax.data.config import DataConfig
from ddf_jax.errors import DataError, NonFiniteError, RunError, UserError
from ddf_jax.training import train as loop
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.metrics import read_metrics
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe, recipe_from_json
from ddf_jax.training.run import load_run
from ddf_jax.training.train import train
from ddf_jax.training.workdir import RunLock
from tests.ddf_jax.training.launch import tiny_recipe
from tests.ddf_jax.training.processes import losses, metrics, saved_bits, snapshot, summary_of


def test_a_run_leaves_what_the_contract_says(unbroken: Path, data_dir: Path):
    assert {path.name.split(".tf")[0] for path in unbroken.iterdir()} == {
        *("recipe.json", "checkpoints", "metrics.jsonl", "events.out", "curves.png", "summary.json")
    }
    assert recipe_from_json((unbroken / "recipe.json").read_text()) == tiny_recipe(data_dir)
    assert sorted(int(path.name) for path in (unbroken / "checkpoints").iterdir()) == [12, 18, 20]
    assert (unbroken / "curves.png").read_bytes().startswith(b"\x89PNG")

    summary = summary_of(unbroken)
    assert (summary["name"], summary["model"], summary["dataset"]) == ("tiny", "resnet18", "digits")
    assert (summary["steps"], summary["devices"], summary["processes"], summary["device"]) == (20, 1, 1, "cpu")
    assert summary["test_examples"] == 360
    assert summary["test_accuracy"] * 360 == pytest.approx(round(summary["test_accuracy"] * 360))
    assert 0 < 20 * 64 / summary["images_per_second"] < summary["seconds"]
    assert summary["versions"]["jax"] == jax.__version__

    rows = metrics(unbroken)
    assert [row["step"] for row in rows if "train_loss" in row] == list(range(1, 21))
    assert [row["step"] for row in rows if "test_accuracy" in row] == [10, 20]
    assert rows[-1]["test_accuracy"] == summary["test_accuracy"]
    losses = {"train_loss", "train_accuracy", "gradient_norm"}
    times = {"images_per_second", "input_ms", "devices_ms", "log_ms"}
    assert read_metrics(unbroken)[0].keys() == {"step", "epoch", "learning_rate"} | losses | times


def test_a_finished_run_is_reported_and_not_touched(
    unbroken: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    before = snapshot(unbroken)
    monkeypatch.setattr(loop, "describe", lambda *_: pytest.fail("the data were opened"))
    assert train(tiny_recipe(data_dir), unbroken) == summary_of(unbroken)
    assert f"{unbroken} is done: test accuracy" in capsys.readouterr().out
    with pytest.raises(RunError, match=r"run of another recipe \(epochs: 0.9 -> 2; seed: 0 -> 1\)"):
        train(tiny_recipe(data_dir, epochs=2, seed=1), unbroken)
    assert snapshot(unbroken) == before


def test_evaluating_a_run_gives_its_score_on_any_devices(unbroken: Path):
    before, summary = snapshot(unbroken), summary_of(unbroken)
    result = evaluate(load_run(unbroken))
    assert result["devices"] == 8
    assert result["step"] == 20
    assert result["test_accuracy"] == summary["test_accuracy"]
    assert result["test_loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    assert snapshot(unbroken) == before


def test_a_loaded_run_predicts_without_its_data(unbroken: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ddf_jax.data.sources.open_source", lambda *_: pytest.fail("the data were opened"))
    run = load_run(unbroken, devices=jax.devices()[:1])
    assert run.info.class_names == tuple("0123456789")
    model, image = run.model(), np.ones((1, 8, 8, 1), np.float32)
    call = nnx.jit(lambda model, image: model(image))
    np.testing.assert_array_equal(call(model, image), call(model, image))  # nothing random, no statistics that move
    assert call(model, image).shape == (1, 10)


@pytest.mark.slow
def test_eight_devices_train_as_one(unbroken: Path, tmp_path: Path, data_dir: Path):
    train(tiny_recipe(data_dir, checkpoint_every=0, evaluate_every=0), tmp_path / "run")
    assert summary_of(tmp_path / "run")["devices"] == 8
    assert_same_training(tmp_path / "run", unbroken)


@pytest.mark.slow
def test_eight_devices_train_a_model_with_ddf_as_one(tmp_path: Path, data_dir: Path):
    model = ModelConfig("ddf_resnet18", {"stem": "small", "width": 8, "blocks": (1,)})
    recipe = tiny_recipe(data_dir, model=model, checkpoint_every=0, evaluate_every=0)
    for count in (1, 8):
        train(recipe, tmp_path / str(count), devices=jax.devices()[:count])
    assert_same_training(tmp_path / "8", tmp_path / "1")


def assert_same_training(eight: Path, one: Path) -> None:
    """But for rounding, which training multiplies."""
    assert len(losses(one)) == 20
    np.testing.assert_allclose(losses(eight)[:5], losses(one)[:5], rtol=1e-5)
    np.testing.assert_allclose(losses(eight), losses(one), rtol=1e-3)
    accuracies = [summary_of(run)["test_accuracy"] for run in (eight, one)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=2 / 360)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path: Path, data_dir: Path):
    optimizer = OptimizerConfig(learning_rate=1e18, warmup_epochs=0.85)
    recipe = tiny_recipe(data_dir, optimizer=optimizer, checkpoint_every=0.045)
    with pytest.raises(NonFiniteError, match=r"Stopped at step \d+: .*\. To resume from there: --resume") as stopped:
        train(recipe, tmp_path / "run", devices=jax.devices()[:1])
    failed, kept = (int(re.findall(f"{at} step (\\d+)", str(stopped.value))[0]) for at in ("Stopped at", "t of"))
    assert kept < failed
    assert "\n" not in str(stopped.value)
    assert max(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == kept
    model = load_run(tmp_path / "run", devices=jax.devices()[:1])
    assert model.step == kept
    for leaf in jax.tree.leaves(model.state.variables):
        assert not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) or np.isfinite(leaf).all()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("stem.*",)}, r"`freeze` \(stem.\*\) needs `init_from`"),
        ({"init_from": "no.pth"}, r"`init_from` must be the folder of a run or a file of weights, got no.pth"),
        ({"init_from": __file__}, r"test_train.py"),
    ],
)
def test_a_run_without_what_it_starts_from_ends_before_its_data_are_opened(
    options: dict[str, Any], message: str, tmp_path: Path
):
    recipe = Recipe("r", data=DataConfig(folder=tmp_path / "no_images"), **options)
    with pytest.raises(UserError, match=message):
        train(recipe, tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_starts_from_another_with_frozen_parameters_and_is_resumed_without_it(
    unbroken: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
):
    source, workdir, device = shutil.copytree(unbroken, tmp_path / "source"), tmp_path / "run", jax.devices()[:1]
    options = {"checkpoint_every": 0.135, "epochs": 0.27, "init_from": source, "freeze": ("stem.*", "stages.0.*")}
    optimizer = OptimizerConfig(learning_rate=0.05, warmup_epochs=0, backbone_factor=0.5)
    recipe = tiny_recipe(data_dir, optimizer=optimizer, **options)
    for change, message in (
        ({"init_from": tmp_path / "no"}, "`init_from` must be the folder of a run or a file"),
        ({"model": ModelConfig("resnet18", {"stem": "small", "width": 4})}, "does not fit the model"),
    ):
        with pytest.raises(UserError, match=message):
            train(dataclasses.replace(recipe, **change), workdir, devices=device)
        assert not workdir.exists()

    train(recipe, workdir, devices=device)
    assert f"Starting from {source}, step 20: " in capsys.readouterr().out
    before, middle, after = saved_bits(unbroken, 20), saved_bits(workdir, 3), saved_bits(workdir, 6)
    model = {name for name in after if name.startswith("model.") and not name.endswith(".count")}
    frozen = {name for name in model if name.startswith(("model.stem.", "model.stages.0."))}
    assert {name for name in model if before[name] == after[name]} == frozen | {n for n in model if n.endswith(".key")}
    assert not [name for name in after if name.startswith("optimizer.") and ".stem." in name]
    assert middle.keys() == after.keys()

    shutil.rmtree(source)
    shutil.rmtree(workdir / "checkpoints" / "6")
    (workdir / "summary.json").unlink()
    train(recipe, workdir, devices=device)
    assert f"Resuming {workdir} from step 3 of 6." in capsys.readouterr().out
    assert saved_bits(workdir, 6) == after


def test_a_run_that_cannot_be_written_or_read_is_named(tmp_path: Path, data_dir: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write to the run's folder .*/file/run: Not a directory"):
        train(tiny_recipe(data_dir), tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"There is no run in .*/nowhere: it has no recipe.json. `ddf train` makes one"):
        load_run(tmp_path / "nowhere")


def test_a_second_launch_ends_at_once_and_changes_nothing(unbroken: Path, data_dir: Path):
    before = snapshot(unbroken)
    with RunLock(unbroken) as lock:
        lock.acquire()
        with pytest.raises(RunError, match=r"is being trained by process \d+ on .* since"):
            train(tiny_recipe(data_dir), unbroken)
    assert snapshot(unbroken) == before


def test_a_batch_that_devices_cannot_share_is_refused(tmp_path: Path, data_dir: Path):
    with pytest.raises(RunError, match=r"`batch_size` must be a multiple of .* that share it, 8, .* got 60"):
        train(tiny_recipe(data_dir, batch_size=60), tmp_path / "run")


def test_an_example_that_cannot_be_prepared_ends_the_run_with_its_state_saved(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    prepare, calls = transforms.ResizeAndCenterCrop.map, itertools.count()

    def fail_late(self: transforms.ResizeAndCenterCrop, element: dict[str, Any]) -> Any:
        if next(calls) == 64 * 8:
            raise KeyError("torn")
        return prepare(self, element)

    monkeypatch.setattr(transforms.ResizeAndCenterCrop, "map", fail_late)
    message = r"Stopped at step \d: Cannot prepare image \d+ of digits/1.0.0: KeyError: 'torn'\. .* Step \d is saved"
    with pytest.raises(DataError, match=message) as caught:
        train(tiny_recipe(data_dir), tmp_path / "run", devices=jax.devices()[:1])
    assert caught.value.exit_status == 1
