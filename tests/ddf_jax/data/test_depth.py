"""Images with depth on their way into a batch: transforms, batches, refused settings."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.depth_transforms import RandomCropAndFlip, RandomHoles, nearest_downsample
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.sources import describe, open_source
from tests.ddf_jax.data.small_rooms import small_rooms


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return small_rooms(tmp_path_factory.mktemp("rooms"))


@pytest.mark.parametrize(("size", "scale"), [(8, 4), (9, 4), (11, 4), (5, 8), (7, 1)])
def test_downsampling_takes_a_pixel_of_each_block(size: int, scale: int):
    depth = np.arange(size * size, dtype=np.float32).reshape(size, size)
    low = nearest_downsample(depth, scale)
    assert low.shape == (-(-size // scale),) * 2
    for i, j in np.ndindex(low.shape):
        block = depth[i * scale : (i + 1) * scale, j * scale : (j + 1) * scale]
        row, column = (min(scale // 2, side - 1) for side in block.shape)
        assert low[i, j] == block[row, column]


def test_a_crop_takes_the_same_pixels_of_picture_and_depth():
    depth = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    image = np.repeat(depth[..., None] % 256, 3, -1).astype(np.uint8)
    crops = [
        RandomCropAndFlip(16).random_map({"image": image, "depth": depth}, np.random.default_rng(seed))
        for seed in range(8)
    ]
    for crop in crops:
        np.testing.assert_array_equal(crop["image"][..., 0], crop["depth"] % 256)
    assert {float(crop["depth"][0, 1] - crop["depth"][0, 0]) for crop in crops} == {1.0, -1.0}


def test_holes_are_in_the_input_alone_and_not_in_every_example():
    element = {"low": np.ones((16, 16, 1), np.float32), "depth": np.ones((64, 64, 1), np.float32)}
    results = [RandomHoles().random_map(element, np.random.default_rng(seed)) for seed in range(40)]
    holes = [float((result["low"] == 0).mean()) for result in results]
    assert 2 < sum(share > 0 for share in holes) < 20
    assert all(result["depth"] is element["depth"] for result in results)
    assert element["low"].all()


def test_batches_hold_whole_pictures_in_evaluation_and_crops_in_training(config: DataConfig):
    info = describe(config, DepthImages(4))
    assert (info.train_size, info.eval_size, info.eval_shape, info.class_names) == (5, 3, (20, 27), ())
    with contextlib.closing(eval_batches(config, DepthImages(4), batch_size=2)) as batches:
        found = list(batches)
    assert [batch["mask"].tolist() for batch in found] == [[True, True], [True, False]]
    for batch in found:
        assert {name: (values.shape[1:], str(values.dtype)) for name, values in batch.items()} == {
            "image": ((20, 27, 3), "float32"),
            "depth": ((20, 27, 1), "float32"),
            "low": ((5, 7, 1), "float32"),
            "mask": ((), "bool"),
        }
        assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
    truth = (open_source(config, DepthImages(4), "eval")[2] or {})["depth"]
    np.testing.assert_array_equal(found[1]["depth"][0, ..., 0], truth)
    np.testing.assert_array_equal(found[1]["low"][0, ..., 0], nearest_downsample(truth, 4))
    assert not found[1]["depth"][1].any()
    with contextlib.closing(train_iterator(config, DepthImages(4), batch_size=2, seed=0)) as iterator:
        batch = next(iterator)
        assert batch["image"].shape == (2, 16, 16, 3)
        assert batch["low"].shape == (2, 4, 4, 1)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 21}, r"`image_size` must be at most the images' 20×27, got 21"),
        ({"augment": "imagenet"}, r"`augment` must be one of crop, holes for depth, got 'imagenet'"),
    ],
)
def test_what_does_not_fit_depth_is_refused(config: DataConfig, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        train_iterator(DataConfig(**{**vars(config), **change}), DepthImages(4), batch_size=2, seed=0)


def test_a_dataset_without_depth_is_refused(digits: DataConfig):
    with pytest.raises(ValueError, match=r"digits/1.0.0 must hold .* 16-bit `depth` each, got FeaturesDict.*rooms"):
        open_source(DataConfig(dataset="digits", data_dir=digits.data_dir), DepthImages(4), "train")
    with pytest.raises(ValueError, match="must come from a `dataset`, such as rooms, got the `folder` here"):
        open_source(DataConfig(folder=Path("here")), DepthImages(4), "train")
