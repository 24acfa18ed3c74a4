import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddf_jax.data import transforms
from ddf_jax.data.batches import HostBatch
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.reading import read_image
from ddf_jax.data.sources import describe, open_source
from ddf_jax.errors import DataError, UserError

WriteImages = Callable[..., list[Path]]


def assert_same(left: Iterable[HostBatch], right: Iterable[HostBatch]) -> None:
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def take(config: DataConfig, count: int, *, step: int = 0, seed: int = 0, batch_size: int = 12, processes: int = 1):
    """`count` global batches from `step` on, put together from the shares of all processes."""
    shares: list[dict[str, Any]] = [
        {"batch_size": batch_size, "process_index": p, "process_count": processes} for p in range(processes)
    ]
    iterators = [train_iterator(config, LabelledImages(), seed=seed, **share) for share in shares]
    for iterator in iterators:
        iterator.set_state({"step": step})
    batches = [concatenate([next(iterator) for iterator in iterators]) for _ in range(count)]
    for iterator in iterators:
        iterator.close()
    return batches


def concatenate(shares: list[HostBatch]) -> HostBatch:
    return {key: np.concatenate([share[key] for share in shares]) for key in shares[0]}


@pytest.fixture
def shifted(digits: DataConfig) -> DataConfig:
    return dataclasses.replace(digits, augment="shift")


def test_training_batches_keep_the_contract(shifted: DataConfig):
    (batch,) = take(shifted, 1)
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((12, 8, 8, 1), np.float32),
        "label": ((12,), np.int32),
        "mask": ((12,), np.bool_),
    }
    assert batch["mask"].all()


def test_training_images_are_normalised(digits: DataConfig):
    (batch,) = take(digits, 1, batch_size=1437)
    assert abs(batch["image"].mean()) < 1e-3
    assert abs(batch["image"].std() - 1) < 1e-3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Pictures of noise, 90 to train on: few, and any two differ."""
    folder = tmp_path_factory.mktemp("pictures")
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)):
        path = folder / f"class {n % 2}" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return DataConfig(folder=folder, image_size=8, augment="none")


def pixels_of(batch: HostBatch) -> list[bytes]:
    """Each image as it was before its normalisation."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return [pixels.tobytes() for pixels in np.round((batch["image"] * std + mean) * 255).astype(np.uint8)]


def test_an_epoch_holds_every_example_once_and_the_next_another_order(pictures: DataConfig):
    source = open_source(pictures, LabelledImages(), "train")
    expected = sorted(
        (example["image"].tobytes(), example["label"]) for example in map(source.__getitem__, range(90)) if example
    )
    epochs = take(pictures, 2, batch_size=90)
    for epoch in epochs:
        assert sorted(zip(pixels_of(epoch), epoch["label"].tolist(), strict=True)) == expected
    assert not np.array_equal(epochs[0]["label"], epochs[1]["label"])


def test_batches_run_on_over_the_end_of_an_epoch(pictures: DataConfig):
    (both,) = take(pictures, 1, batch_size=2 * 90)
    batches = take(pictures, 5, batch_size=33)
    np.testing.assert_array_equal(np.concatenate([b["image"] for b in batches]), both["image"][:165])


def test_the_seed_decides_everything(shifted: DataConfig):
    assert_same(take(shifted, 3, seed=1), take(shifted, 3, seed=1))
    with pytest.raises(AssertionError):
        assert_same(take(shifted, 1, seed=1), take(shifted, 1, seed=2))


def test_augmentation_is_drawn_anew_for_every_visit(pictures: DataConfig):
    plain, shifted = (take(dataclasses.replace(pictures, augment=a), 2, batch_size=90) for a in ("none", "shift"))
    visits = [dict(zip(pixels_of(a), b["image"], strict=True)) for a, b in zip(plain, shifted, strict=True)]
    moved = [[pixels != pixels_of({"image": image[None]})[0] for pixels, image in visit.items()] for visit in visits]
    anew = [(image != visits[1][pixels]).any() for pixels, image in visits[0].items()]
    assert all(0.8 < np.mean(share) < 0.96 for share in (*moved, anew))  # 8 of 9 shifts move an image


def test_a_restored_state_gives_the_batches_of_the_unbroken_run(shifted: DataConfig):
    unbroken = train_iterator(shifted, LabelledImages(), batch_size=12, seed=3)
    states, batches = [], []
    for _ in range(133):
        states.append(json.loads(json.dumps(unbroken.get_state())))
        batches.append(next(unbroken))
    for step in (0, 1, 119, 130):
        fresh = train_iterator(shifted, LabelledImages(), batch_size=12, seed=3)
        for iterator in (fresh, unbroken):
            iterator.set_state(states[step])
            assert_same(itertools.islice(iterator, 3), batches[step : step + 3])


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_makes_the_same_global_batches_from_any_step(shifted: DataConfig, processes: int):
    """So a run saved by one process may be resumed with two, with the same bits."""
    assert_same(take(shifted, 4, step=118, processes=processes), take(shifted, 4, step=118))


def test_a_worker_process_makes_the_same_batches_and_outlasts_signals(shifted: DataConfig):
    with_worker = train_iterator(dataclasses.replace(shifted, workers=1), LabelledImages(), batch_size=12, seed=0)
    with_worker.set_state({"step": 5})
    first = [next(with_worker)]
    (worker,) = (child for child in multiprocessing.active_children() if "grain" in child.name)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
    assert_same(first + [next(with_worker) for _ in range(5)], take(shifted, 6, step=5))
    assert with_worker.get_state() == {"step": 11}
    with_worker.close()
    assert not worker.is_alive()


@pytest.mark.parametrize(("batch_size", "processes"), [(50, 1), (51, 3), (360, 1), (361, 1), (1000, 2), (7, 7)])
def test_evaluation_counts_every_example_once(digits: DataConfig, batch_size: int, processes: int):
    source = open_source(digits, LabelledImages(), "eval")
    shares = [
        list(eval_batches(digits, LabelledImages(), batch_size=batch_size, process_index=p, process_count=processes))
        for p in range(processes)
    ]
    assert {len(share) for share in shares} == {-(-360 // batch_size)}
    batches = [concatenate(list(parts)) for parts in zip(*shares, strict=True)]
    assert all(batch["image"].shape == (batch_size, 8, 8, 1) for batch in batches)
    everything = concatenate(batches)
    np.testing.assert_array_equal(everything["mask"], np.arange(len(batches) * batch_size) < 360)
    labels = [example["label"] for example in map(source.__getitem__, range(360)) if example]
    np.testing.assert_array_equal(everything["label"][:360], labels)
    assert np.isfinite(everything["image"]).all()


def test_evaluation_ends_and_knows_its_length(digits: DataConfig):
    batches = eval_batches(digits, LabelledImages(), batch_size=100)
    assert len(batches) == 4
    assert len(list(batches)) == 4
    assert next(batches, None) is None


def test_a_corrupt_file_is_replaced_in_training_and_masked_in_evaluation(tmp_path: Path, write_images: WriteImages):
    for part in ("train", "test"):
        paths = write_images(tmp_path / part / "a", 10) + write_images(tmp_path / part / "b", 10, first=100)
        paths[3].write_bytes(b"")
        paths[19].write_bytes(b"")
    config = DataConfig(folder=tmp_path, image_size=8, augment="none", max_corrupt_share=0.1)
    (epoch,) = take(config, 1, batch_size=20)
    grey = np.sort(np.round((epoch["image"][:, 0, 0, 0] * 0.229 + 0.485) * 255).astype(int))
    assert grey.tolist() == [0, 0, 1, 2, 4, 4, *range(5, 10), *range(100, 109)]
    assert epoch["mask"].all()
    evaluated = concatenate(list(eval_batches(config, LabelledImages(), batch_size=6)))
    assert np.flatnonzero(~evaluated["mask"]).tolist() == [3, 19, 20, 21, 22, 23]
    assert evaluated["label"][evaluated["mask"]].tolist() == [0] * 9 + [1] * 9
    assert evaluated["image"].shape == (24, 8, 8, 3)


def test_an_error_while_an_image_is_prepared_names_its_file(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
):
    for name in "ab":
        write_images(tmp_path / name, 3)
    config = DataConfig(folder=tmp_path, image_size=8, augment="none")
    monkeypatch.setattr(transforms.Normalize, "write", lambda *_: {}["a defect"])
    with (
        pytest.raises(DataError, match=rf"Cannot prepare {tmp_path}/[ab]/00\d.png: KeyError: 'a defect'. Mend it or"),
        contextlib.closing(train_iterator(config, LabelledImages(), batch_size=2, seed=0)) as batches,
    ):
        next(batches)


def test_corrupt_files_beyond_the_share_stop_the_run(tmp_path: Path, write_images: WriteImages):
    for path in write_images(tmp_path / "train" / "a", 9)[:2]:
        path.write_bytes(b"")
    write_images(tmp_path / "train" / "b", 1)
    write_images(tmp_path / "test" / "a", 10)
    with pytest.raises(ValueError, match=r"At most 10\.00% of the 10 image files"):
        train_iterator(DataConfig(folder=tmp_path, max_corrupt_share=0.1), LabelledImages(), batch_size=2, seed=0)


def test_a_users_image_gets_the_evaluation_transform(digits: DataConfig, tmp_path: Path):
    info = describe(digits, LabelledImages())
    batch = next(eval_batches(digits, LabelledImages(), batch_size=1))
    example = open_source(digits, LabelledImages(), "eval")[0]
    assert example is not None
    image = Image.fromarray(example["image"][..., 0])
    image.save(tmp_path / "digit.png")
    files = (tmp_path / "digit.png", str(tmp_path / "digit.png"))
    for user_image in (image, image.convert("RGB"), *files, example["image"], example["image"][..., 0]):
        np.testing.assert_array_equal(read_image(user_image, info, digits), batch["image"][0])


@pytest.mark.parametrize("kind", ["missing", "folder", "text"])
def test_an_unreadable_user_image_is_one_clear_error(digits: DataConfig, tmp_path: Path, kind: str):
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    if kind == "text":
        path.write_text("no image")
    message = (
        f"There is no file {path}." if kind == "missing" else f"{path} must be an image file that pillow can read, "
    )
    with pytest.raises(ValueError, match=message) as caught:
        read_image(path, describe(digits, LabelledImages()), digits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.zeros((8, 8), np.float32), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8)])
def test_an_array_that_is_not_an_image_is_refused(digits: DataConfig, array: np.ndarray):
    with pytest.raises(UserError, match=r"must be uint8 \[H, W\] or \[H, W, C\] with C = 1 or 3, got"):
        read_image(array, describe(digits, LabelledImages()), digits)


@pytest.mark.parametrize("make", [train_iterator, eval_batches])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"batch_size": 50, "process_count": 3}, "multiple of the number of processes, 3, got 50"),
        ({"batch_size": 0}, "multiple of the number of processes, 1, got 0"),
        ({"batch_size": 4, "process_index": 2, "process_count": 2}, r"must be in \[0, 2\), got 2"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(digits: DataConfig, make, call, message):
    with pytest.raises(ValueError, match=message):
        make(digits, LabelledImages(), **call, **({"seed": 0} if make is train_iterator else {}))


@pytest.mark.parametrize("state", [{}, {"step": -1}, {"step": 1.5}, {"next_index": 3}])
def test_a_state_of_another_kind_is_refused(digits: DataConfig, state):
    with pytest.raises(ValueError, match="The state must be"):
        train_iterator(digits, LabelledImages(), batch_size=4, seed=0).set_state(state)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"image_size": 0}, "at least 1 pixel, got 0"),
        ({"workers": -1}, "a number of processes, got -1"),
        ({"max_corrupt_share": 1.5}, r"a share in \[0, 1\], got 1.5"),
        ({"max_pixels": 0}, "at least 1, got 0"),
        ({"sample_max": 0}, "above 0, got 0"),
        ({"image_size": 8.0}, "`image_size` must be a whole number, got 8.0"),
        ({"folder": 3}, "`folder` must be a path, got 3"),
    ],
)
def test_a_setting_out_of_range_is_refused(field, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**field)


def test_paths_may_be_strings_and_whole_numbers_numpys(tmp_path: Path):
    config = DataConfig(folder=str(tmp_path), image_size=np.int64(8))  # pyright: ignore[reportArgumentType]
    assert config == DataConfig(folder=tmp_path, image_size=8)
    assert (type(config.folder), type(config.image_size)) == (type(tmp_path), int)
