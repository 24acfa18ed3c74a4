"""Predictions and evaluations of a loaded run."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddf_jax.checkpoints import save_checkpoint
from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.files import write_checksums
from ddf_jax.models import registry
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.initial_weights import check_init_from, initialize_from
from ddf_jax.training.leaves import leaf_names
from ddf_jax.training.recipe import ModelConfig, Recipe, recipe_file_record
from ddf_jax.training.run import Run, load_run, predict, upsample
from ddf_jax.training.step import ModelState
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling


@pytest.fixture(scope="module")
def run(unbroken: Path) -> Run:
    return load_run(unbroken, devices=jax.devices()[:2])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (67, 8, 8), np.uint8)


def test_any_number_of_images_is_predicted_as_one_by_one(run: Run, images: np.ndarray, tmp_path: Path):
    whole = predict(run, images)  # in batches of 64, the second of them padded
    assert (whole.shape, whole.dtype) == ((67, 10), np.float32)
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-5)
    normalised = (images[64:, :, :, None].astype(np.float32) / 255 - 0.3058) / 0.3761
    model = run.model()
    logits = np.asarray(jax.jit(lambda x: model(x))(normalised))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(whole[64:], chances, rtol=1e-4)
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    mixed = predict(run, [tmp_path / "one.png", Image.fromarray(images[1]), images[1]])
    np.testing.assert_allclose(mixed, whole[[1, 1, 1]], rtol=1e-5)


def test_nothing_to_predict_is_refused(run: Run):
    with pytest.raises(UserError, match="`images` must hold an image, got none"):
        predict(run, [])


def test_a_checkpoint_is_loaded_by_its_step(unbroken: Path):
    assert load_run(unbroken, 12).step == 12
    with pytest.raises(UserError, match=r"There is no checkpoint 13 in .*; there are \[12, 18, 20\]"):
        load_run(unbroken, 13)


def test_the_recipe_of_a_run_is_that_of_its_checkpoint(unbroken: Path, tmp_path: Path):
    shutil.copytree(unbroken, tmp_path / "run")
    file = tmp_path / "run" / "recipe.json"
    recipe = json.loads(file.read_text())
    file.write_text(json.dumps(recipe | {"seed": 77}))
    assert load_run(tmp_path / "run").recipe == load_run(unbroken).recipe


def test_a_run_of_0_1_is_read_where_its_own_recipe_has_the_new_names(unbroken: Path, tmp_path: Path):
    shutil.copytree(unbroken, tmp_path / "run")
    record = tmp_path / "run" / "checkpoints" / "20" / "record.json"
    saved = json.loads(record.read_text())
    saved["recipe"] |= {"label_smoothing": saved["recipe"].pop("task")["label_smoothing"]}
    record.write_text(json.dumps(saved))
    write_checksums(record.parent)
    assert load_run(tmp_path / "run").recipe == load_run(unbroken).recipe
    with pytest.raises(RunError, match=r"Training cannot resume from the checkpoint .*20: The recipe was written"):
        Checkpoints(record.parents[1]).recipe(20)


def test_a_checkpoint_that_training_removes_while_it_is_read_gives_way_to_a_newer_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    shutil.move(workdir / "checkpoints" / "20", tmp_path / "newer")
    load = Checkpoints.load

    def load_late(self: Checkpoints, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        if step == 18:
            shutil.rmtree(workdir / "checkpoints" / "18")
            shutil.move(tmp_path / "newer", workdir / "checkpoints" / "20")
        return load(self, step, abstract)

    monkeypatch.setattr(Checkpoints, "load", load_late)
    assert load_run(workdir).step == 20


def test_other_data_of_the_same_kind_are_evaluated(run: Run):
    first = evaluate(run, dataclasses.replace(run.recipe.data, eval_split="test[:20]"))
    assert first["test_examples"] == 20
    assert (first["name"], first["step"], first["devices"]) == ("tiny", 20, 2)
    small = dataclasses.replace(run, info=dataclasses.replace(run.info, channels=3))
    with pytest.raises(UserError, match=r"`data` must have the classes and channels of the run's"):
        evaluate(small, run.recipe.data)


def test_a_run_is_used_for_its_own_task(run: Run):
    recipe = Recipe("depth", ModelConfig("ddf_up_net"), DataConfig(), task=DepthUpsampling())
    info = DataInfo(0, (), channels=3, train_size=5, eval_size=3, image_size=16)
    depth = Run(recipe, info, 1, ModelState(run.state.structure, {}), data_mesh())
    with pytest.raises(UserError, match=r"takes an image alone, got depth, whose model takes image and low"):
        predict(depth, [np.zeros((8, 8), np.uint8)])
    with pytest.raises(UserError, match="must be one of depth upsampling, got tiny, a Classification"):
        upsample(run, np.zeros((8, 8, 3), np.float32), np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match="for an image of 8×9 the depth must be 2×3, got 2×2"):
        upsample(depth, np.zeros((8, 9, 3), np.float32), np.zeros((2, 2), np.float32))


def initial(run: Run) -> dict[str, Any]:
    """A state of the run's structure with zeros, before the first step of another."""
    zeros = jax.tree.map(lambda leaf: leaf if leaf.dtype != np.float32 else leaf * 0, run.state.variables)
    return {"model": zeros, "optimizer": {"step": np.uint32(0)}}


def bits(variables: dict[str, Any]) -> dict[str, bytes]:
    named = zip(leaf_names(variables), jax.tree.leaves(variables), strict=True)
    return {name: np.asarray(leaf).tobytes() for name, leaf in named if leaf.dtype == np.float32}


def test_a_run_starts_from_another_runs_checkpoint_or_from_a_file(
    run: Run, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    compared: list[dict[str, str]] = []
    monkeypatch.setattr("ddf_jax.training.initial_weights.check_same_in_all_processes", compared.append)
    start = Recipe("new", init_from=unbroken)
    variables, record = initialize_from(start, initial(run))
    assert bits(variables["model"]) == bits(run.state.variables)
    assert variables["optimizer"] == initial(run)["optimizer"]
    assert [leaf.sharding for leaf in jax.tree.leaves(variables["model"])] == [
        leaf.sharding for leaf in jax.tree.leaves(run.state.variables)
    ]
    count = len(bits(run.state.variables))
    assert record == {
        "from": str(unbroken),
        "step": 20,
        "sha256": record["sha256"],
        "loaded": count,
        "initialised": [],
    }
    assert compared == [{"initial weights": record["sha256"]}]
    assert f"Starting from {unbroken}, step 20: {count} tensors loaded.\n" in capsys.readouterr().out

    _, older = initialize_from(dataclasses.replace(start, init_step=12), initial(run))
    assert (older["step"], older["sha256"] == record["sha256"]) == (12, False)

    file = tmp_path / "official.safetensors"
    save_checkpoint(run.model(), file, naming="official")
    fresh = dataclasses.replace(start, init_from=file, init_head="fresh")
    variables, record = initialize_from(fresh, initial(run))
    assert (record["step"], record["initialised"]) == (None, ["head.bias", "head.kernel"])
    expected = bits(run.state.variables)
    assert {name for name, found in bits(variables["model"]).items() if found != expected[name]} == {
        "head.bias",
        "head.kernel",
    }


def test_a_detector_starts_from_a_classifier_in_its_backbone(
    run: Run, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Of a run, and of a file; the rest of the detector and the optimizer keep what they have."""
    of_run = initial(run)["model"]
    backbone = {name: value for name, value in of_run.items() if name != "head"}
    other = jnp.full((2, 3), 5.0, device=jax.tree.leaves(of_run)[0].sharding)
    start = {"model": {"backbone": backbone, "neck": {"kernel": other}}, "optimizer": {"step": np.uint32(0)}}
    file = tmp_path / "classifier.safetensors"
    save_checkpoint(run.model(), file, naming="official")
    expected = {f"backbone.{name}": value for name, value in bits(run.state.variables).items() if "head" not in name}
    for source, origin in ((unbroken, f"{unbroken}, step 20"), (file, str(file))):
        variables, record = initialize_from(Recipe("detector", init_from=source), start)
        assert bits(variables["model"]) == expected | {"neck.kernel": np.asarray(other).tobytes()}
        assert variables["optimizer"] == start["optimizer"]
        assert (record["loaded"], record["initialised"]) == (len(expected), ["neck.kernel"])
        line = capsys.readouterr().out
        assert f"Starting from {origin}, as the backbone: {len(expected)} tensors loaded, 1 as initialised" in line
        assert "2 of the file not used (" in line
    with pytest.raises(UserError, match=r"taken as the weights of a backbone, does not fit"):
        initialize_from(Recipe("detector", init_from=file), {**start, "model": {"backbone": {"conv": other}}})


def test_a_start_that_cannot_be_is_refused(run: Run, unbroken: Path, tmp_path: Path):
    file, empty = tmp_path / "a.safetensors", shutil.copytree(unbroken, tmp_path / "run")
    save_checkpoint(run.model(), file)
    damaged = tmp_path / "b.safetensors"
    damaged.write_bytes(file.read_bytes()[:-9])
    shutil.rmtree(empty / "checkpoints")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"init_from": tmp_path / "no"}, r"`init_from` must be the folder of a run or a file .*/no, which is neither"),
        ({"init_from": file, "init_step": 3}, r"`init_step` is the checkpoint of a run, but `init_from` is the file"),
        ({"init_from": damaged}, r"b.safetensors is not a whole safetensors file"),
        ({"init_from": empty}, r"run has no checkpoint yet"),
        ({"init_from": tmp_path}, r"There is no run in"),
        ({"init_from": unbroken, "init_step": 13}, r"There is no checkpoint 13"),
        ({"freeze": ("stem.*",)}, r"`freeze` \(stem.\*\) needs `init_from`"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            check_init_from(Recipe("new", **options))
    with pytest.raises(UserError, match=r"'a.\*' matches nothing that is missing"):
        initialize_from(Recipe("new", init_from=unbroken, init_allow_missing=("a.*",)), initial(run))


MINE = """
import dataclasses
from ddf_jax.models import get_config, register
from ddf_jax.training.recipe import ModelConfig, Recipe

@register
def mine():
    return dataclasses.replace(get_config("resnet18"))

recipe = Recipe("mine", ModelConfig("mine"))
"""


@pytest.fixture
def mine(unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a model that a recipe file registers, in a process that has not executed it."""
    monkeypatch.setattr(registry.MODELS, "entries", dict(registry.MODELS.entries))
    file, workdir = tmp_path / "mine.py", shutil.copytree(unbroken, tmp_path / "run")
    file.write_text(MINE)
    change_record(workdir, recipe_file_record(file))
    return workdir


def change_record(workdir: Path, recipe_file: dict[str, str] | None) -> None:
    folder = workdir / "checkpoints" / "20"
    record = json.loads((folder / "record.json").read_text())
    record["recipe"]["model"]["name"] = "mine"
    (folder / "record.json").write_text(json.dumps(record | {"recipe_file": recipe_file}))
    write_checksums(folder)


def test_the_recipe_file_of_a_run_registers_its_model_again(mine: Path, run: Run):
    again = load_run(mine)
    assert again.recipe.model.name == "mine"
    assert bits(again.state.variables) == bits(run.state.variables)
    assert load_run(mine).step == 20  # registered now: nothing is executed twice


def test_a_recipe_file_is_executed_only_if_it_is_what_the_run_recorded_or_as_asked(
    mine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    file, inside = tmp_path / "mine.py", mine / "mine.py"
    trap = "raise SystemExit('executed')\n"

    def refusal() -> str:
        with pytest.raises(RunError) as refused:
            load_run(mine)
        message = str(refused.value)
        assert message.startswith(f"The model 'mine' of the run in {mine} is not registered, and ")
        assert "--recipe FILE" in message
        return message

    file.write_text(trap)
    assert f"{file} has changed since" in refusal()
    file.unlink()
    assert f"{file} is no longer there" in refusal()
    inside.write_text(trap)
    file.symlink_to(inside)
    beside, link = tmp_path / "beside.py", tmp_path / "link.py"
    beside.write_text(trap)
    link.symlink_to(beside)
    monkeypatch.chdir(tmp_path)
    for path, reason in (
        (inside, "lies in the run's folder, in which nothing is executed"),
        (file, "lies in the run's folder, in which nothing is executed"),
        (link, "is a link or relative"),
        (Path(beside.name), "is a link or relative"),
    ):
        change_record(mine, recipe_file_record(path) | {"path": str(path)})
        assert reason in refusal()
    change_record(mine, None)
    assert "the run has no recipe file of its own" in refusal()

    other = tmp_path / "other.py"
    other.write_text("from ddf_jax.training.recipe import Recipe\nrecipe = Recipe('other')\n")
    with pytest.raises(RunError, match=r"other.py must register the model 'mine' of the run in .*, but does not"):
        load_run(mine, recipe_file=other)
    other.write_text(MINE)
    change_record(mine, recipe_file_record(inside))
    assert load_run(mine, recipe_file=other).step == 20
    assert f"{other} differs from {inside} as it was when the run was trained." in caplog.messages
