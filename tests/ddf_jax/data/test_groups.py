"""Upright and lying images: batches of one shape, evenly spread, the same for any number of processes."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddf_jax.data.batches import HostBatch
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import DetectionImages
from ddf_jax.data.groups import InTurns
from ddf_jax.data.pipeline import eval_batches, train_iterator
from tests.ddf_jax.data.coco_files import LYING, UPRIGHT, write_sized

KIND = DetectionImages(canvas=(64, 96), max_objects=3, masks=True, upright=True)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Eight lying and four upright images to train on, three and four to evaluate on."""
    folder = tmp_path_factory.mktemp("coco")
    write_sized(folder, "train", [UPRIGHT, LYING, LYING] * 4)
    write_sized(folder, "val", [UPRIGHT, LYING] * 3 + [UPRIGHT])
    return DataConfig(folder=folder, augment="flip")


def take(config: DataConfig, count: int, step: int = 0, kind: DetectionImages = KIND, **share: Any) -> list[HostBatch]:
    with contextlib.closing(train_iterator(config, kind, batch_size=2, seed=3, **share)) as batches:
        batches.set_state({"step": step})
        return [next(batches) for _ in range(count)]


def join(shares: Sequence[Sequence[HostBatch]]) -> list[HostBatch]:
    """The global batches of which processes have these shares."""
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]


def assert_same(left: Sequence[HostBatch], right: Sequence[HostBatch]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_batch_has_one_shape_in_which_its_images_are_as_large_as_they_can_be(config: DataConfig):
    shapes = set()
    for batch in take(config, 6):
        upright = batch["original_size"][:, 0] > batch["original_size"][:, 1]
        assert upright.all() or not upright.any()
        canvas = (96, 64) if upright[0] else (64, 96)
        shapes.add(canvas)
        assert batch["image"].shape == (2, *canvas, 3)
        assert batch["masks"].shape == (2, 3, canvas[0], canvas[1] // 8)
        assert batch["size"].tolist() == [list(canvas)] * 2
        np.testing.assert_allclose(batch["boxes"][:, 0, 2] - batch["boxes"][:, 0, 0], 20 * 1.6, rtol=1e-5)
    assert len(shapes) == 2


def test_an_epoch_has_every_image_once_and_the_next_another_order(config: DataConfig):
    epochs = [np.concatenate([batch["image_id"] for batch in take(config, 6, step=6 * epoch)]) for epoch in range(2)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert epochs[0].tolist() != epochs[1].tolist()


def test_any_number_of_processes_and_workers_makes_the_same_batches_from_any_step(config: DataConfig):
    shares = [
        take(dataclasses.replace(config, workers=workers), 4, step=3, process_index=index, process_count=2)
        for index, workers in enumerate((0, 1))
    ]
    assert_same(join(shares), take(config, 7)[3:])


def test_images_of_one_orientation_come_as_without_the_option(tmp_path: Path):
    write_sized(tmp_path, "train", [LYING] * 5)
    config = DataConfig(folder=tmp_path, augment="flip")
    assert_same(take(config, 4), take(config, 4, kind=dataclasses.replace(KIND, upright=False)))


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_has_every_image_once_and_fills_up_each_shape(config: DataConfig, processes: int):
    shares: list[Any] = []
    for index in range(processes):
        share = {"batch_size": 4, "process_index": index, "process_count": processes}
        with contextlib.closing(eval_batches(config, KIND, **share)) as batches:
            shares.append(list(batches))
    joined = join(shares)
    assert [batch["image"].shape for batch in joined] == [(4, 64, 96, 3), (4, 96, 64, 3)]
    assert [batch["image_id"].tolist() for batch in joined] == [[1, 3, 5, -1], [0, 2, 4, 6]]
    assert [batch["mask"].tolist() for batch in joined] == [[True] * 3 + [False], [True] * 4]


def test_an_unreadable_image_is_replaced_by_one_of_its_orientation(tmp_path: Path):
    write_sized(tmp_path, "train", [UPRIGHT, LYING, UPRIGHT, LYING])
    (tmp_path / "train" / "0.png").write_bytes(b"no image")
    config = DataConfig(folder=tmp_path, augment="none", max_corrupt_share=0.5)
    found = {int(number) for batch in take(config, 6) for number in batch["image_id"]}
    assert found == {1, 2, 3}


@pytest.mark.parametrize("sizes", [(3, 1), (1, 3), (5, 7), (85_273, 31_993)])
def test_turns_are_spread_evenly_and_use_up_each_dataset_in_order(sizes: tuple[int, int]):
    whole, taken = InTurns([range(10**6), range(-1, -(10**6), -1)], sizes, batch_size=1), [0, 0]
    for step in range(200):
        value = whole[step]
        group = int(value < 0)
        assert value == (-1 - taken[1] if group else taken[0])
        taken[group] += 1
        assert abs(taken[0] - (step + 1) * sizes[0] / sum(sizes)) < 1
