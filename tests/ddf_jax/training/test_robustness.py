"""Errors on corrupted pictures: which pictures are evaluated, how often anything is compiled, and what is reported."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ddf_jax.data.config import DataConfig
from ddf_jax.data.corrupted import CorruptedImages
from ddf_jax.data.corruptions import FAMILIES, corrupt
from ddf_jax.data.decode import encode_png
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import eval_batches
from ddf_jax.data.sources import describe, describe_evaluation, open_source
from ddf_jax.data.transforms import Normalize, ResizeAndCenterCrop
from ddf_jax.errors import RunError, UserError
from ddf_jax.training import evaluate as evaluation
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.robustness import robustness, robustness_table, select_corruptions
from ddf_jax.training.run import Run, load_run
from tests.ddf_jax.training.regression import Regression


@pytest.fixture(scope="module")
def run(unbroken: Path) -> Run:
    return load_run(unbroken)


def test_the_pictures_are_corrupted_as_they_are_cropped_and_resized_each_by_its_index(data_dir):
    config = DataConfig(data_dir=data_dir, image_size=16, eval_split="test[:5]")
    examples = CorruptedImages(LabelledImages(), "gaussian_noise", 3, seed=7)
    assert examples.open(config, "eval") is open_source(config, LabelledImages(), "eval")
    source, resize, normalize = open_source(config, LabelledImages(), "eval"), ResizeAndCenterCrop(16), Normalize(1)
    for batch_size in (2, 4):
        batches = list(eval_batches(config, examples, batch_size=batch_size))
        images = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
        for index in range(5):
            picture = resize.map(source[index] or {})["image"]
            noisy = corrupt(picture, "gaussian_noise", 3, seed=7, index=index)
            np.testing.assert_array_equal(images[index], normalize.map({"image": noisy})["image"])


def test_errors_are_those_of_the_corrupted_pictures_by_one_program(run, monkeypatch):
    compiled = []
    compile_eval_step = evaluation.compile_eval_step

    def counted(*arguments):
        compiled.append(arguments)
        return compile_eval_step(*arguments)

    monkeypatch.setattr(evaluation, "compile_eval_step", counted)
    few = dataclasses.replace(run.recipe.data, eval_split="test[:40]")
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, data=few))
    lines: list[str] = []
    found = robustness(run, ["contrast", "noise"], (5, 1), report=lines.append)
    assert len(compiled) == 1
    assert json.loads(json.dumps(found)) == found
    assert found["severities"] == [1, 5]
    assert list(found["corruptions"]) == [*FAMILIES["noise"], "contrast"]
    assert len(lines) == 5
    clean = evaluate(run)
    assert found.items() >= {key: clean[key] for key in ("test_accuracy", "test_examples", "step", "model")}.items()
    for name, row in found["corruptions"].items():
        assert row["family"] == ("digital" if name == "contrast" else "noise")
        assert row["mean_error"] == pytest.approx(np.mean(row["errors"]))
    means = {name: row["mean_error"] for name, row in found["corruptions"].items()}
    assert found["families"].keys() == {"noise", "digital"}
    assert found["families"]["noise"] == pytest.approx(np.mean([means[name] for name in FAMILIES["noise"]]))
    assert found["mean_corruption_error"] == pytest.approx(np.mean(list(means.values())))
    again = robustness(run, ["contrast"], [5])
    assert again["corruptions"]["contrast"]["errors"] == found["corruptions"]["contrast"]["errors"][1:]
    lines = robustness_table(found).splitlines()
    assert lines[0].split() == ["corruption", "family", "1", "5", "mean"]
    assert lines[-1].split()[-1] == f"{100 * found['mean_corruption_error']:.1f}"


def test_corruptions_are_selected_by_name_by_family_or_all_at_once():
    assert len(select_corruptions(["all"])) == 19
    assert len(select_corruptions(["benchmark"])) == 15
    assert select_corruptions(["snow", "blur", "fog", "snow"]) == (*FAMILIES["blur"], "snow", "fog")
    with pytest.raises(UserError, match=r"must be one of all, benchmark, noise, .*saturate, got rain, hail"):
        select_corruptions(["rain", "snow", "hail"])
    with pytest.raises(UserError, match="must be a corruption"):
        select_corruptions([])


def test_other_severities_and_other_tasks_are_refused(run):
    for severities, got in (((0, 1), "0, 1"), ((), "none")):
        with pytest.raises(UserError, match=f"some of 1, 2, 3, 4 and 5, got {got}"):
            robustness(run, severities=severities)
    other = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, task=Regression()))
    with pytest.raises(RunError, match=r"need a run of classification, got .*, of Regression"):
        robustness(other)


@pytest.mark.parametrize(
    ("name", "config", "split"),
    [("imagenet_v2", "matched-frequency", "test"), ("imagenet2012_corrupted", "gaussian_noise_1", "validation")],
)
def test_a_set_to_evaluate_on_alone_opens_by_name(tmp_path, monkeypatch, name, config, split):
    """With the features and the only split that TFDS's own builder declares, and few images."""
    builder: Any = tfds.builder_cls(name)

    class Few(builder, skip_registration=True):  # pyright: ignore[reportGeneralTypeIssues, reportCallIssue]
        def _split_generators(self, dl_manager):
            return {split: self._generate_examples()}

        def _generate_examples(self):
            for key in range(3):
                image = encode_png(np.full((40, 50, 3), 80 * key, np.uint8))
                yield f"{key}", {"image": image, "label": key, "file_name": f"{key}.png"}

    few: Any = Few
    few.name = name
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    few(config=config, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    for named in (name, f"{name}/{config}"):
        data = DataConfig(dataset=named, data_dir=tmp_path, eval_split=split, image_size=32)
        info = describe_evaluation(data, LabelledImages())
        assert (info.num_classes, info.channels, info.train_size, info.eval_size) == (1000, 3, 0, 3)
        assert info.class_names[0] == "n01440764"
        (batch,) = eval_batches(data, LabelledImages(), batch_size=4)
        assert batch["mask"].tolist() == [True, True, True, False]
        assert sorted(batch["label"].tolist()) == [0, 0, 1, 2]  # padding has 0
        with pytest.raises(UserError, match=f"must be {split}, or a slice of one, got 'train'"):
            describe(data, LabelledImages())


def test_a_run_is_evaluated_on_other_data_without_a_split_to_train_on(run, data_dir):
    config = dataclasses.replace(run.recipe.data, train_split="none", eval_split="test[:40]")
    found = evaluate(run, config)
    assert found["test_examples"] == 40
    assert robustness(run, ["pixelate"], [1], data=config)["test_accuracy"] == found["test_accuracy"]
    other = dataclasses.replace(run, info=dataclasses.replace(run.info, channels=3))
    with pytest.raises(RunError, match="must have the classes and channels"):
        evaluate(other, config)
