import dataclasses
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import describe, open_source
from ddf_jax.data.tfds_source import TfdsSource
from ddf_jax.errors import DataError, UserError

COLOURS = ("red", "green", "blue")
SUPERVISED = ("image", "label")


def prepare(
    data_dir: Path, *, keys=SUPERVISED, shape=(None, None, 3), labels=(2, 0, 1), names=("red", "green", "blue")
) -> None:
    """Prepares a dataset `colours` of three JPEG images."""

    class Colours(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.1.0")

        def _info(self):
            image = tfds.features.Image(shape=shape, encoding_format="jpeg")
            label = tfds.features.ClassLabel(names=list(names))
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for key, label in enumerate(labels):
                pixels = np.zeros((4 + key, 6, 3), np.uint8)
                pixels[..., label] = 255
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "jpeg", subsampling=0)
                file.seek(0)
                yield key, {"image": file, "label": label}

    Colours(data_dir=data_dir, file_format="array_record").download_and_prepare()


def damage_file(file: Path, damage: Callable[[bytes], bytes] | None) -> None:
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))


@pytest.fixture(autouse=True)
def temporary_files_stay_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_any_prepared_classification_dataset_opens_by_name(tmp_path: Path):
    prepare(tmp_path)
    for name in ("colours", "colours:2.1.0"):
        config = DataConfig(dataset=name, data_dir=tmp_path, train_split="train[1:]", eval_split="train")
        source = open_source(config, LabelledImages(), "eval")
        assert source.class_names == ("red", "green", "blue")
        assert [example["label"] for example in map(source.__getitem__, range(3)) if example] == [2, 0, 1]
        assert [example["image"].shape for example in map(source.__getitem__, range(3)) if example] == [
            (4, 6, 3), (5, 6, 3), (6, 6, 3),
        ]  # fmt: skip
        image = (source[0] or {})["image"]
        assert (image.argmax(axis=-1) == 2).all()
        assert (describe(config, LabelledImages()).train_size, describe(config, LabelledImages()).eval_size) == (2, 3)


@pytest.mark.parametrize("name", ["digitz", "mnist", "digits:9.9.9", "digits/tiny", "no name", ""])
def test_a_dataset_that_is_not_prepared_is_one_clear_error(digits: DataConfig, name: str):
    with pytest.raises(
        ValueError,
        match=r"prepared in .+ \(usable now: digits, furniture, rooms, rooms_panoptic\), got .*tfds build NAME",
    ) as caught:
        open_source(dataclasses.replace(digits, dataset=name), LabelledImages(), "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["validation", "train[", ""])
def test_an_unknown_split_names_those_that_are(digits: DataConfig, split: str):
    with pytest.raises(ValueError, match="must be train, test, or a slice of one, got"):
        open_source(dataclasses.replace(digits, eval_split=split), LabelledImages(), "eval")


def test_a_dataset_without_random_access_states_how_to_prepare_it(digits: DataConfig, tmp_path: Path):
    assert digits.data_dir is not None
    shutil.copytree(digits.data_dir / "digits", tmp_path / "digits")
    path = tmp_path / "digits" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(
        ValueError, match=r"as array_record, got .*TFRECORD.*tfds build digits --file_format=array_record"
    ):
        TfdsSource("digits", "train", tmp_path)


def test_a_dataset_that_is_no_classification_is_refused(tmp_path: Path):
    prepare(tmp_path, keys=None)
    with pytest.raises(ValueError, match="one class label each, got None of FeaturesDict"):
        TfdsSource("colours", "train", tmp_path)


def test_an_example_without_a_label_is_refused_when_it_is_read(tmp_path: Path):
    prepare(tmp_path, labels=(0, -1, 1))
    source = TfdsSource("colours", "train", tmp_path)
    assert source[0]["label"] == 0
    with pytest.raises(ValueError, match="must have a label, got none at 1"):
        source[1]


def test_digits_are_prepared_once_and_reused(tmp_path: Path):
    TfdsSource("digits", "train", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "digits").rglob("*")}
    assert before
    assert len(TfdsSource("digits", "test", tmp_path)) == 360
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "digits").rglob("*")} == before


def test_preparing_prints_nothing_on_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture):
    TfdsSource("digits", "train", tmp_path)
    assert capfd.readouterr().out == ""


def test_a_data_dir_that_is_a_file_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`data_dir` must be a writable folder, got .*file"):
        TfdsSource("digits", "train", tmp_path / "file")


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_a_feature_class_outside_tfds_is_refused_before_its_module_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
):
    prepare(tmp_path)
    (tmp_path / "evil_features.py").write_text("raise SystemExit('code of the data was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "colours" / "2.1.0" / "features.json"
    features = json.loads(file.read_text())
    label = features["featuresDict"]["features"]["label"]
    del label["pythonClassName"]
    label[key] = "evil_features.Label"
    file.write_text(json.dumps(features))
    with pytest.raises(
        UserError,
        match=r"features\.json must name feature classes of tensorflow_datasets alone, got evil_features.Label",
    ) as caught:
        TfdsSource("colours", "train", tmp_path)
    assert "\n" not in str(caught.value)


SHARD = "digits-train.array_record-00000-of-00001"


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (SHARD, lambda data: data[: len(data) // 2], "Invalid Riegeli/records file"),
        (SHARD, None, "No such file"),
        ("dataset_info.json", lambda data: data.replace(b"1437", b"1436"), "has 1437 records instead of 1436"),
        ("features.json", lambda data: data[:50], "Expecting"),
    ],
)
def test_a_damaged_dataset_of_this_package_is_prepared_again(
    digits: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage, reason: str
):
    assert digits.data_dir is not None
    shutil.copytree(digits.data_dir / "digits", tmp_path / "digits")
    damage_file(tmp_path / "digits" / "1.0.0" / name, damage)
    assert len(TfdsSource("digits", "train", tmp_path)) == 1437
    (line,) = caplog.messages
    assert reason in line
    assert line.endswith("and is prepared again")


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("colours-train.array_record-00000-of-00001", lambda data: data[:-100], "must have a multiple of 65536 bytes"),
        ("colours-train.array_record-00000-of-00001", lambda _: b"", "got 0 bytes"),
        ("colours-train.array_record-00000-of-00001", None, "got no such file"),
        ("dataset_info.json", lambda data: data[:50], "must be the JSON that TFDS wrote"),
        ("dataset_info.json", None, "must be the JSON that TFDS wrote, got No such file"),
    ],
)
def test_a_damaged_dataset_of_tfds_is_one_line_that_names_the_file(tmp_path: Path, name: str, damage, reason: str):
    prepare(tmp_path)
    file = tmp_path / "colours" / "2.1.0" / name
    damage_file(file, damage)
    with pytest.raises(DataError, match=rf"{file} .*{reason}.*\. Delete that folder and prepare the dataset again"):
        TfdsSource("colours", "train", tmp_path)


def test_a_record_that_cannot_be_read_is_one_line(digits: DataConfig, tmp_path: Path):
    assert digits.data_dir is not None
    shutil.copytree(digits.data_dir / "digits", tmp_path / "digits")
    file = tmp_path / "digits" / "1.0.0" / SHARD
    damage_file(file, lambda data: data[:196632] + bytes(200) + data[196832:])
    source = TfdsSource("digits", "train", tmp_path)
    assert source[877]["label"].shape == ()
    with pytest.raises(DataError, match=rf"got record 878 of train in {file.parent}: .* Delete that folder") as caught:
        source[878]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as from a worker


def test_a_dataset_of_one_class_is_refused(tmp_path: Path):
    prepare(tmp_path, labels=(0, 0), names=("red",))
    with pytest.raises(UserError, match=r"at least two classes in colours/2.1.0, got red"):
        TfdsSource("colours", "train", tmp_path)
