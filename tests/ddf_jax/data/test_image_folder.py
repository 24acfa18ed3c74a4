import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data import image_files
from ddf_jax.data.config import DataConfig, Decoding
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.image_folder import ImageFolder
from ddf_jax.data.sources import open_source
from ddf_jax.errors import UserError

WriteImages = Callable[..., list[Path]]


def grey_values(source: ImageFolder) -> list[int]:
    return [int(example["image"][0, 0, 0]) for example in map(source.__getitem__, range(len(source))) if example]


def test_train_and_test_folders_share_naturally_sorted_classes(tmp_path: Path, write_images: WriteImages):
    for i, name in enumerate(["class10", "class2", "Class1"]):
        write_images(tmp_path / "train" / name, 3, first=10 * i)
    write_images(tmp_path / "test" / "class2", 2, first=50)
    train, test = ImageFolder(tmp_path, "train", 0), ImageFolder(tmp_path, "eval", 0)
    assert train.class_names == test.class_names == ("Class1", "class2", "class10")
    assert grey_values(train) == [20, 21, 22, 10, 11, 12, 0, 1, 2]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert grey_values(test) == [50, 51]
    assert test.labels.tolist() == [1, 1]


def test_val_takes_the_place_of_a_missing_test_folder(tmp_path: Path, write_images: WriteImages):
    for name in "ab":
        write_images(tmp_path / "train" / name, 3)
    write_images(tmp_path / "val" / "a", 2, first=9)
    write_images(tmp_path / "test", 2)  # images without classes
    assert grey_values(ImageFolder(tmp_path, "eval", 0)) == [9, 10]


def test_one_folder_is_split_by_a_fixed_rule(tmp_path: Path, write_images: WriteImages):
    write_images(tmp_path / "a", 30)
    write_images(tmp_path / "b", 4, first=100)
    write_images(tmp_path / "c", 1, first=200)
    train, held_out = grey_values(ImageFolder(tmp_path, "train", 0)), grey_values(ImageFolder(tmp_path, "eval", 0))
    # The smallest `printf a/001.png | sha256sum` of each class; other ones would move images between the splits.
    assert held_out == [1, 15, 24, 102]
    assert sorted(train + held_out) == [*range(30), *range(100, 104), 200]


def test_the_folder_may_be_the_current_one(tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch):
    for name in "ab":
        write_images(tmp_path / name, 2)
    monkeypatch.chdir(tmp_path)
    assert ImageFolder(Path(), "train", 0).files == ImageFolder(tmp_path, "train", 0).files


def test_a_class_called_train_does_not_hide_its_siblings(tmp_path: Path, write_images: WriteImages):
    for name in ("train", "bus", "car"):
        write_images(tmp_path / name, 2)
    assert ImageFolder(tmp_path, "train", 0).class_names == ("bus", "car", "train")


def test_deeper_files_count_and_hidden_or_other_files_do_not(tmp_path: Path, write_images: WriteImages):
    for part in ("train", "test"):
        write_images(tmp_path / part / "a" / "deeper", 1, first=1)
        write_images(tmp_path / part / "a", 1, first=2, suffix=".JPG")
        write_images(tmp_path / part / "a" / ".hidden", 1, first=3)
        write_images(tmp_path / part / ".hidden", 1, first=4)
        write_images(tmp_path / part / "__MACOSX", 1, first=5)
        write_images(tmp_path / part / "a" / "@eaDir", 1, first=6)
        write_images(tmp_path / part / "b", 1, first=7, suffix=".jfif")
        (tmp_path / part / "a" / "notes.txt").write_text("no image")
    assert ImageFolder(tmp_path, "train", 0).class_names == ("a", "b")
    assert grey_values(ImageFolder(tmp_path, "eval", 0)) == [2, 1, 7]


def test_files_that_are_no_images_are_counted_by_suffix(
    tmp_path: Path, write_images: WriteImages, caplog: pytest.LogCaptureFixture
):
    for name in "ab":
        write_images(tmp_path / name, 2)
        for file in ("a.HEIC", "b.heic", "labels", ".hidden"):
            (tmp_path / name / file).write_bytes(b"")
    (tmp_path / "labels.csv").write_bytes(b"")
    ImageFolder(tmp_path, "train", 0)
    ImageFolder(tmp_path, "eval", 0)
    assert caplog.messages == [
        f"left out in {tmp_path}, being no images in a class: 1 .csv, 4 .heic, 2 without a suffix"
    ]


def test_images_of_16_bits_that_use_12_are_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in (1, 2):
            Image.fromarray(np.full((9, 9), 2047 * i, np.uint16)).save(tmp_path / name / f"{i}.png")
    ImageFolder(tmp_path, "train", 0)
    assert [f"2 image files of more than 8 bits in {tmp_path} are almost black" in m for m in caplog.messages] == [True]
    assert "--data.sample-max 4095" in caplog.text
    caplog.clear()
    assert grey_values(ImageFolder(tmp_path, "train", 0, Decoding(sample_max=4095)))[0] in (127, 255)
    assert not caplog.messages


def test_corrupt_files_are_named_counted_and_left_out(
    tmp_path: Path, write_images: WriteImages, caplog: pytest.LogCaptureFixture
):
    paths = write_images(tmp_path / "train" / "a", 19)
    write_images(tmp_path / "train" / "b", 1, first=19)
    write_images(tmp_path / "test" / "a", 1)
    paths[3].write_bytes(b"")
    paths[7].write_bytes(b"no image")
    with caplog.at_level(logging.WARNING):
        source = ImageFolder(tmp_path, "train", max_corrupt_share=0.1)
    assert sorted(source.corrupt) == ["train/a/003.png", "train/a/007.png"]
    assert str(paths[3]) in caplog.text
    assert str(paths[7]) in caplog.text
    assert f"2 of 20 image files checked in {tmp_path} are unreadable" in caplog.text
    assert source[3] is None
    assert grey_values(source) == [i for i in range(20) if i not in (3, 7)]


def test_more_corrupt_files_than_the_share_are_an_error_with_examples(tmp_path: Path, write_images: WriteImages):
    paths = write_images(tmp_path / "train" / "a", 19)
    write_images(tmp_path / "train" / "b", 1, first=19)
    write_images(tmp_path / "test" / "a", 1)
    for path in paths[:3]:
        path.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"At most 10.00% of the 20 .* got 3 so far, such as train/a/000.png, train/a/001"
    ):
        ImageFolder(tmp_path, "train", max_corrupt_share=0.1)


def test_a_file_that_was_not_checked_is_found_when_it_is_read(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(image_files, "_CHECKED_FILES", 2)
    paths = write_images(tmp_path / "train" / "a", 19)
    write_images(tmp_path / "train" / "b", 1, first=19)
    write_images(tmp_path / "test" / "a", 1)
    source = ImageFolder(tmp_path, "train", max_corrupt_share=0.1)
    paths[5].unlink()
    paths[6].write_bytes(b"")
    paths[7].write_bytes(b"")
    assert source[5] is None
    assert source[6] is None
    assert source[5] is None
    assert sorted(source.corrupt) == ["train/a/005.png", "train/a/006.png"]
    with pytest.raises(ValueError, match="got 3 so far"):
        source[7]


def test_images_become_rgb(tmp_path: Path, write_images: WriteImages):
    for name in "ab":
        write_images(tmp_path / name, 2)
    example = ImageFolder(tmp_path, "train", 0)[0]
    assert example is not None
    assert example["image"].shape == (10, 12, 3)
    assert example["image"].dtype == np.uint8


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], "no such folder"),
        ([""], "one sub-folder per class with images in it, got no sub-folder"),
        (["a", "b"], "Every class must have an image .*, got none in .*/a: 0 folders"),
        (["a!"], r"at least two classes in .*images, got 1 folder \(a\)\.$"),
        (["set/a!", "set/b!"], r"at least two classes in .*, got 1 folder \(set\). If .* --data.folder .*/images/set"),
        (["a!", "b!", "test!"], r"must hold train/<class>/ .* got the split test in 3 folders \(a, b, test\)"),
        (["Train!", "Valid!"], r"got the split Train, Valid in 2 folders"),
        (["train!", "test1!"], r"got the split test1, train in 2 folders"),
        (["train2014/a!", "train2017/a!"], "must have one folder for the split train, got train2014 and train2017"),
        (["test/a!", "test/b!"], r"got the split test in 1 folder"),
        (["train/a!", "train/b!", "val/a!", "Valid/a!"], "must have one folder for the split test, got val and Valid"),
        (
            ["a/train!", "a/test!", "b/train!", "b/test!"],
            r"Splits must lie above classes, as in train/a/, got 2 folders",
        ),
        (["all/a!", "all/b!", "a!", "b!"], r"must not hold the other classes again, got 2 folders \(a, b\) in .*/all"),
        (["train/a", "train/b"], "must have a folder `test` or `val` next to it with the same classes, got neither"),
        (["train/a", "train/b", "test/c"], r"must also be in .*train, got \['c'\]"),
        (
            ["train/a!", "train/b!", "test/a"],
            "There must be an image to eval on in .*/test, got none for its 2 classes",
        ),
    ],
)
def test_a_folder_of_another_shape_is_one_clear_error(tmp_path: Path, write_images: WriteImages, layout, message):
    folder = tmp_path / "images"
    for name in layout:
        (folder / name.strip("!")).mkdir(parents=True)
        if name.endswith("!"):
            write_images(folder / name.strip("!"), 1)
    with pytest.raises(ValueError, match=message) as caught:
        ImageFolder(folder, "eval", 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("TRAIN", "valid"),
        ("train2017", "val2017"),
        ("train", "validation"),
        ("Training", "val"),
    ],
)
def test_splits_are_known_by_their_usual_names(tmp_path: Path, write_images: WriteImages, train: str, test: str):
    for name in "ab":
        write_images(tmp_path / train / name, 3)
        write_images(tmp_path / test / name, 2, first=9)
    assert ImageFolder(tmp_path, "train", 0).class_names == ("a", "b")
    assert grey_values(ImageFolder(tmp_path, "eval", 0)) == [9, 10, 9, 10]


def test_the_names_of_splits_choose_folders_and_are_never_without_effect(tmp_path: Path, write_images: WriteImages):
    for first, part in enumerate(("train", "2019", "test", "val")):
        for name in "ab":
            write_images(tmp_path / part / name, 1, first=first)

    def evaluated(name: str) -> list[int]:
        return grey_values(ImageFolder(tmp_path, "eval", 0, split_names=("train", name)))

    assert [evaluated("test"), evaluated("validation"), evaluated("2019")] == [[2, 2], [3, 3], [1, 1]]
    with pytest.raises(UserError, match=r"`data.eval_split` must be a folder in .*, got 'train\[90%:\]': .* 4 folders"):
        evaluated("train[90%:]")
    with pytest.raises(UserError, match=r"`data.sample_max` must be left out with a `dataset`"):
        open_source(DataConfig(sample_max=4095), LabelledImages(), "train")


@pytest.mark.parametrize("kind", ["real", "linked"])
def test_each_real_directory_is_read_once(tmp_path: Path, write_images: WriteImages, kind: str):
    folder, shared = tmp_path / "images", tmp_path / "shared"
    write_images(folder / "dogs", 3)
    write_images(shared / "cats" / "deeper", 3, first=10)
    folder.joinpath("cats").symlink_to(shared / "cats")
    if kind == "linked":
        (folder / "dogs" / "again").symlink_to(folder / "dogs")  # an ancestor
        with pytest.raises(UserError, match=r"must not lead to a folder that it lies in, got .*/dogs/again to .*/dogs"):
            ImageFolder(folder, "train", 0)
        return
    for link in ("one", "two"):
        (shared / "cats" / link).symlink_to(shared / "cats" / "deeper")
    (shared / "cats" / "itself").symlink_to("itself")
    (shared / "cats" / "file.png").symlink_to(shared / "cats" / "deeper" / "010.png")
    source = ImageFolder(folder, "train", 0)
    assert sorted(grey_values(source) + grey_values(ImageFolder(folder, "eval", 0))) == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("cats/more", "dogs", "into another class, got .*/cats/more of cats, which leads to what dogs holds"),
        ("cats/a.png", "dogs/000.png", "into another class, got .*/cats/a.png of cats"),
        ("cats/up", "", "a folder that it lies in"),
        ("birds", "dogs", "into another class, got .*/birds of birds"),
        ("birds", "", "a folder that it lies in"),
    ],
)
def test_a_link_to_an_ancestor_or_into_another_class_is_an_error(
    tmp_path: Path, write_images: WriteImages, link: str, target: str, message: str
):
    for name in ("cats", "dogs"):
        write_images(tmp_path / name, 2)
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=message):
        ImageFolder(tmp_path, "train", 0)


def test_training_images_are_not_evaluated_through_a_link(tmp_path: Path, write_images: WriteImages):
    for name in ("train/cats", "train/dogs"):
        write_images(tmp_path / name, 2)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    with pytest.raises(UserError, match=r"must not use training images, got .*/test/cats, a link to those of .*/train"):
        ImageFolder(tmp_path, "eval", 0)


def test_a_single_image_per_class_leaves_nothing_to_evaluate_on(tmp_path: Path, write_images: WriteImages):
    for name in "ab":
        write_images(tmp_path / name, 1)
    assert len(ImageFolder(tmp_path, "train", 0)) == 2
    with pytest.raises(ValueError, match="There must be an image to eval on"):
        ImageFolder(tmp_path, "eval", 0)
