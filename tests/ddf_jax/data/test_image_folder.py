import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddf_jax.data import image_folder
from ddf_jax.data.image_folder import ImageFolder

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
    write_images(tmp_path / "train" / "a", 3)
    write_images(tmp_path / "val" / "a", 2, first=9)
    assert grey_values(ImageFolder(tmp_path, "eval", 0)) == [9, 10]


def test_one_folder_is_split_by_a_fixed_rule(tmp_path: Path, write_images: WriteImages):
    write_images(tmp_path / "a", 30)
    write_images(tmp_path / "b", 4, first=100)
    write_images(tmp_path / "c", 1, first=200)
    train, held_out = grey_values(ImageFolder(tmp_path, "train", 0)), grey_values(ImageFolder(tmp_path, "eval", 0))
    # The smallest `printf a/001.png | sha256sum` of each class; other ones would move images between the splits.
    assert held_out == [1, 15, 24, 102]
    assert sorted(train + held_out) == [*range(30), *range(100, 104), 200]


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
        (tmp_path / part / "a" / "notes.txt").write_text("no image")
    assert ImageFolder(tmp_path, "train", 0).class_names == ("a",)
    assert grey_values(ImageFolder(tmp_path, "eval", 0)) == [2, 1]


def test_corrupt_files_are_named_counted_and_left_out(
    tmp_path: Path, write_images: WriteImages, caplog: pytest.LogCaptureFixture
):
    paths = write_images(tmp_path / "train" / "a", 20)
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
    paths = write_images(tmp_path / "train" / "a", 20)
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
    monkeypatch.setattr(image_folder, "_CHECKED_FILES", 2)
    paths = write_images(tmp_path / "train" / "a", 20)
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
    write_images(tmp_path / "a", 2)
    example = ImageFolder(tmp_path, "train", 0)[0]
    assert example is not None
    assert example["image"].shape == (10, 12, 3)
    assert example["image"].dtype == np.uint8


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ([], "no such folder"),
        ([""], "one sub-folder per class with images in it, got no sub-folder"),
        (["a"], "Every class must have an image .*, got none in .*/a"),
        (["train/a"], "must have a folder `test` or `val` next to it with the same classes, got neither"),
        (["train/a", "test/b"], r"must also be in .*train, got \['b'\]"),
        (["train/a!", "test/a"], "There must be an image to eval on in .*/test, got none for its 1 classes"),
    ],
)
def test_a_folder_of_another_shape_is_one_clear_error(tmp_path: Path, write_images: WriteImages, layout, message):
    folder = tmp_path / "images"
    for name in layout:
        (folder / name.strip("!")).mkdir(parents=True)
        if name.endswith("!"):
            write_images(folder / name.strip("!"), 1)
    with pytest.raises(ValueError, match=message):
        ImageFolder(folder, "eval", 0)


def test_a_single_image_leaves_nothing_to_evaluate_on(tmp_path: Path, write_images: WriteImages):
    write_images(tmp_path / "a", 1)
    assert len(ImageFolder(tmp_path, "train", 0)) == 1
    with pytest.raises(ValueError, match="There must be an image to eval on"):
        ImageFolder(tmp_path, "eval", 0)
