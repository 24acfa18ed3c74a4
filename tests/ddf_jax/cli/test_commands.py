"""Each command from its words to what it prints and writes."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ddf_jax.checkpoints import read_tensors, save_checkpoint
from ddf_jax.models import list_models, registry
from ddf_jax.training.run import load_run
from ddf_jax.verify.report import Report

CHANGED = ("--optimizer.learning-rate", "0.05")  # what differs between the tiny recipe and its run


def test_train_writes_a_run_and_prints_its_summary(tiny_run):
    out, err = tiny_run.with_suffix(".out").read_text(), tiny_run.with_suffix(".err").read_text()
    summary = json.loads(out)
    assert summary == json.loads((tiny_run / "summary.json").read_text())
    assert (summary["name"], summary["model"], summary["steps"]) == ("tiny", "ddf_resnet18", 2)
    assert 0 <= summary["test_accuracy"] <= 1
    assert "step 2 of 2" in err
    recipe = json.loads((tiny_run / "recipe.json").read_text())
    assert recipe["optimizer"]["learning_rate"] == 0.05


def test_train_again_states_that_the_run_is_done(ddf, tiny, tiny_run):
    status, out, _ = ddf("train", tiny, "--workdir", tiny_run, *CHANGED)
    assert status == 0
    assert "is done" in out
    assert f"tiny: test accuracy {json.loads((tiny_run / 'summary.json').read_text())['test_accuracy']:.2%}" in out


def test_train_runs_in_runs_slash_name_by_default(ddf, tiny, tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "runs" / "renamed")
    monkeypatch.chdir(tmp_path)
    status, out, _ = ddf("train", tiny, "--name", "renamed", *CHANGED)
    assert status == 0
    assert "Everything is in runs/renamed." in out


def test_train_refuses_what_it_cannot_do(refused, tiny, tiny_run, tmp_path):
    (tmp_path / "file").write_text("")
    new = tmp_path / "new"
    for words, message in [
        (["--workdir", tmp_path / "file" / "run"], "Cannot write to the run's folder"),
        (["--workdir", tiny_run, *CHANGED, "--epochs", "3"], "holds a run of another recipe (epochs: 0.09 -> 3.0)"),
        (
            ["--workdir", new, "--model.name", "ddf_resnet5"],
            "no model named 'ddf_resnet5'. Did you mean 'ddf_resnet50'",
        ),
        (["--workdir", new, "--model.options", "wdth=4"], "'ddf_resnet18' has no option 'wdth'. Did you mean 'width'?"),
        (["--workdir", new, "--data.dataset", "digit"], "`dataset` must be a TFDS name"),
        (["--workdir", new, "--data.folder", tmp_path / "no"], "no such folder"),
        (["--workdir", new, "--optimizer.warmup-epochs", "9"], "`epochs` must leave a step after the warm-up"),
    ]:
        assert message in refused("train", tiny, *words)
    assert not new.exists()


def test_evaluate_scores_the_run_as_training_did(ddf, tiny_run):
    status, out, err = ddf("evaluate", tiny_run, "--json")
    assert status == 0, err
    scores, summary = json.loads(out), json.loads((tiny_run / "summary.json").read_text())
    for name in ("name", "model", "test_accuracy", "test_examples"):
        assert scores[name] == summary[name]
    assert scores["test_loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
    assert scores["step"] == 2
    _, out, _ = ddf("evaluate", tiny_run)
    assert out.startswith(f"tiny, step 2: test accuracy {summary['test_accuracy']:.2%}")


def test_predict_gives_the_five_most_likely_classes(ddf, tiny_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 20, 30, 3), np.uint8)
    files = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    status, out, err = ddf("predict", tiny_run, *files, "--json")
    assert status == 0, err
    rows = json.loads(out)
    assert [row["image"] for row in rows] == list(map(str, files))
    for row in rows:
        chances = [guess["probability"] for guess in row["predictions"]]
        assert len(chances) == 5
        assert chances == sorted(chances, reverse=True)
        assert 0.5 < sum(chances) <= 1 + 1e-6
        assert {guess["class"] for guess in row["predictions"]} <= set("0123456789")
    _, out, _ = ddf("predict", tiny_run, files[1])
    lines = out.splitlines()
    best = rows[1]["predictions"][0]
    assert lines[0] == str(files[1])
    assert lines[1].split() == [f"{best['probability']:.2%}", best["class"]]
    assert len(lines) == 6


def test_predictions_are_the_softmax_of_the_models_logits(ddf, tiny_run, tmp_path):
    image = np.random.default_rng(1).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(image).save(tmp_path / "grey.png")
    best = json.loads(ddf("predict", tiny_run, tmp_path / "grey.png", "--json").out)[0]["predictions"][0]
    run = load_run(tiny_run)
    normalised = (image.astype(np.float32) / 255 - 0.3058) / 0.3761
    chances = jax.nn.softmax(nnx.jit(lambda model, x: model(x))(run.model(), normalised[None, :, :, None])[0])
    assert run.info.class_names[int(chances.argmax())] == best["class"]
    assert float(chances.max()) == pytest.approx(best["probability"], rel=1e-4)


def test_runs_that_cannot_be_read_are_refused(refused, tiny_run, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    for words in (["evaluate", tmp_path / "no"], ["predict", tmp_path / "no", tmp_path / "black.png"]):
        assert f"There is no run in {tmp_path / 'no'}" in refused(*words)
    assert "text.png must be an image file" in refused("predict", tiny_run, tmp_path / "text.png")
    assert "Try `ddf predict`" in refused("detect", tiny_run, tmp_path / "black.png")
    assert "absent.png" in refused("predict", tiny_run, tmp_path / "absent.png")


def test_a_corrupt_checkpoint_is_refused_by_name(ddf, tiny, tiny_run, tmp_path):
    folder = tmp_path / "corrupt"
    shutil.copytree(tiny_run, folder)
    (folder / "summary.json").unlink()
    largest = max((folder / "checkpoints" / "2").rglob("*"), key=lambda file: file.stat().st_size * file.is_file())
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    for words in (["evaluate", folder], ["train", tiny, "--workdir", folder, *CHANGED]):
        status, _, err = ddf(*words, "--json")
        assert status == 2
        assert "No checkpoint in" in err.splitlines()[-1]
        assert largest.name in err.splitlines()[-1]
        assert "Traceback" not in err


def test_models_counts_and_cites(ddf):
    status, out, err = ddf("models", "resnet[15]*", "--json")
    assert status == 0, err
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == list_models("resnet[15]*")
    assert all(set(row) == {"name", "params", "macs_core", "macs_mmcv", "published"} for row in rows.values())
    assert rows["resnet50"]["params"] == 25_557_032
    assert rows["resnet50"]["macs_core"] < rows["resnet50"]["macs_mmcv"]
    assert rows["resnet50"]["published"]["params_millions"] == 25.6
    assert "Zhou" in rows["resnet50"]["published"]["source"]
    assert rows["resnet152"]["published"] == {}


def test_models_counts_detectors_on_mmdetections_image_and_cites_what_is_trained(ddf):
    [row] = json.loads(ddf("models", "faster_rcnn_resnet50", "--json").out)
    assert set(row) == {"name", "params", "macs_core", "macs_mmcv", "published"}
    assert round(row["macs_mmcv"] / 1e9, 3) == 207.065
    assert row["params"] > 1e6 * row["published"]["params_millions"] == 41.5e6
    assert row["published"]["box_ap"] == 0.377
    assert ddf("models", "panoptic_fpn_resnet50").out.split()[-2:] == ["46.0", "M"]
    assert ddf("models", "faster_rcnn_binet50").out.split()[-1] == "G"


def test_models_prints_a_table(ddf):
    _, out, _ = ddf("models", "ddf_resnet18")
    header, row = out.splitlines()
    assert header.split() == ["parameters", "core", "MACs", "mmcv", "MACs", "published"]
    assert row.split() == ["ddf_resnet18", "7.70", "M", "0.355", "G", "0.355", "G", "7.7", "M,", "0.4", "G"]


def test_models_refuses_names_that_are_none(refused):
    assert "no model named 'resnet5'. Did you mean 'resnet50'" in refused("models", "resnet5")
    assert "No model's name matches 'vgg*'" in refused("models", "vgg*")


def test_convert_rewrites_names(ddf, refused, tiny_run, tmp_path):
    ours, official = tmp_path / "ours.safetensors", tmp_path / "official.safetensors"
    save_checkpoint(load_run(tiny_run).model(), ours)
    status, out, err = ddf("convert", ours, official, "--json")
    assert status == 0, err
    assert json.loads(out) == {"target": str(official), "tensors": len(read_tensors(official))}
    assert "conv1.weight" in read_tensors(official)
    assert "conv1.weight" not in read_tensors(ours)
    assert "no checkpoint file" in refused("convert", tmp_path / "no.safetensors", official)
    for words, message in [
        ([ours, official, "--checkpoint", "2"], "`--checkpoint` needs the folder of a run as SOURCE"),
        ([ours, official, "--recipe", "x.py"], "`--recipe` needs the folder of a run as SOURCE"),
        ([tiny_run, official, "--ema"], "take --checkpoint newest:ema"),
        ([tiny_run, official, "--model", "resnet18"], "has its own"),
        ([tiny_run, official, "--checkpoint", "0"], "There is no checkpoint 0 in"),
        ([tmp_path, official], "There is no run in"),
    ]:
        assert message in refused("convert", *words)
    target = tmp_path / "run.safetensors"
    assert ddf("convert", tiny_run, target, "--checkpoint", "2").status == 0
    assert target.read_bytes() == ours.read_bytes()


MINE = """
import dataclasses
import runpy
from ddf_jax.models import get_config, register
from ddf_jax.training.recipe import ModelConfig

@register
def mine():
    return dataclasses.replace(get_config("ddf_resnet18"), stem="small", width=8, blocks=(1,))

recipe = dataclasses.replace(runpy.run_path({tiny!r})["recipe"], name="mine", model=ModelConfig("mine"))
"""


@pytest.mark.slow
def test_commands_read_a_run_whose_recipe_file_registers_its_model(ddf, refused, tiny, tmp_path, monkeypatch):
    """Each as in a process of its own, which has not executed the file."""
    known, file, run, image = dict(registry.MODELS.entries), tmp_path / "mine.py", tmp_path / "run", tmp_path / "a.png"
    file.write_text(MINE.format(tiny=str(tiny)))
    Image.new("L", (8, 8)).save(image)

    def alone(command, *words):
        monkeypatch.setattr(registry.MODELS, "entries", dict(known))
        return command(*words)

    assert alone(ddf, "train", file, "--workdir", run).status == 0
    commands = [
        ("evaluate", run),
        ("predict", run, image),
        ("inspect", run, image),
        ("convert", run, tmp_path / "mine.safetensors"),
    ]
    for words in commands:
        result = alone(ddf, *words)
        assert result.status == 0, result.err
    moved = file.rename(tmp_path / "moved.py")
    for words in (commands[0], commands[-1]):
        assert "mine.py is no longer there. Name the Python file" in alone(refused, *words)
        assert alone(ddf, *words, "--recipe", moved).status == 0


@pytest.mark.parametrize(("error", "status"), [(1e-12, 0), (1e-3, 1)])
def test_verify_reports_and_fails_with_its_reports(ddf, monkeypatch, error, status):
    reports = [Report("resnet18", "float64", (97, 65), 1e-9, {"loss": {"loss": error}})]
    asked = {}
    monkeypatch.setattr("ddf_jax.verify.verify", lambda name, **options: asked.update(options, name=name) or reports)
    monkeypatch.setattr("ddf_jax.verify.format_table", lambda reports: f"{len(reports)} models")
    assert ddf("verify", "resnet*", "--size", "64", "96").out == "1 models\n"
    assert (asked["name"], asked["size"], asked["dtype"]) == ("resnet*", (64, 96), "float64")
    result = ddf("verify", "--json")
    assert result.status == status
    assert json.loads(result.out) == [
        {
            "model": "resnet18",
            "dtype": "float64",
            "size": [97, 65],
            "passed": status == 0,
            "tolerance": 1e-9,
            "worst": {"what": "loss loss", "relative_error": error},
        }
    ]
