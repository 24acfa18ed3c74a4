"""Rooms, the labelled NYU Depth v2, and what becomes of pictures with depth on their way into a batch."""

import contextlib
import io
import itertools
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets import nyu_depth, rooms
from ddf_jax.data.datasets.nyu_depth import NyuDepthV2Labeled, open_labeled
from ddf_jax.data.datasets.rendering import Box, Paint, Sphere, render_room
from ddf_jax.data.decode import CorruptImageError, decode_depth, encode_depth
from ddf_jax.data.depth_transforms import RandomCropAndFlip, RandomHoles, nearest_downsample
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.pipeline import eval_batches, train_iterator
from ddf_jax.data.sources import describe, open_source
from ddf_jax.errors import UserError
from tests.ddf_jax.data.small_rooms import small_rooms

EYE, AHEAD = np.zeros(3, np.float32), np.array([[0.0, 0.0, 1.0], [0.0, 0.1, 1.0], [0.0, 9.0, 1.0]], np.float32)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    return small_rooms(tmp_path_factory.mktemp("rooms"))


def test_rooms_are_seeded_and_their_depth_is_that_of_a_room():
    first, again, other = (render_room(np.random.default_rng(seed), 24, 32) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.depth, again.depth)
    assert not np.array_equal(first.depth, other.depth)
    for view in (first, other):
        assert view.image.shape == (24, 32, 3)
        assert view.depth.dtype == np.float32
        assert view.depth.min() > 0.2
        assert view.depth.max() < 10


def test_rays_meet_bodies_where_geometry_says():
    centre, turn = np.array([0.0, 0.0, 3.0], np.float32), np.eye(3, dtype=np.float32)
    hit, distance = Sphere(centre, 1.0, Paint(np.ones((2, 3)))).hit(EYE, AHEAD)
    np.testing.assert_array_equal(hit, [0, 1])  # and the third passes above
    b = 3 / 1.01  # of t² · 1.01 - 6 t + 8 = 0
    np.testing.assert_allclose(distance, [2, b - np.sqrt(b**2 - 8 / 1.01)], rtol=1e-5)
    box = Box(centre, np.array([1.0, 1.0, 0.5], np.float32), turn)
    np.testing.assert_allclose(box.hit(EYE, AHEAD)[1], [2.5, 2.5], rtol=1e-6)
    np.testing.assert_allclose(box.surface(np.array([[0.3, 0.2, 2.5]], np.float32))[1], [[0, 0, -1]])
    assert len(Box(-centre, box.half, turn).hit(EYE, AHEAD)[0]) == 0  # behind the eye


def test_depth_survives_png_to_the_millimetre():
    depth = np.array([[0.0, 0.001, 1.2344], [9.9996, 65.535, 99.0]])
    np.testing.assert_allclose(decode_depth(encode_depth(depth).getvalue()), [[0, 0.001, 1.234], [10, 65.535, 65.535]])


@pytest.mark.parametrize("kind", ["L", "RGB", "JPEG", "cut", "empty"])
def test_what_is_no_16_bit_png_is_named(kind: str):
    file = io.BytesIO()
    Image.new("RGB" if kind == "RGB" else "L", (20, 20)).save(file, "JPEG" if kind == "JPEG" else "PNG")
    whole = encode_depth(np.random.default_rng(0).random((20, 20))).getvalue()
    data = {"cut": whole[:-60], "empty": b""}.get(kind, file.getvalue())
    messages = {
        "L": "PNG of 8-bit grey, not",
        "RGB": "PNG of RGB, not",
        "JPEG": "JPEG of 8-bit",
        "empty": "empty file",
        "cut": "OSError",
    }
    with pytest.raises(CorruptImageError, match=messages[kind]):
        decode_depth(data)


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


def write_mat(path: Path, count: int = nyu_depth.COUNT) -> tuple[np.ndarray, np.ndarray]:
    """A file laid out as the published one, with pictures of 5 rows and 4 columns."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 4, 5), np.uint8)
    depths = rng.uniform(0.5, 9, (count, 4, 5)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"] = images, depths
    return images, depths


def test_nyu_depth_is_read_from_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images, depths = write_mat(tmp_path / "downloads" / "manual" / nyu_depth.FILE)
    monkeypatch.setattr(nyu_depth, "TRAIN_COUNT", nyu_depth.COUNT - 3)  # what is first to read is not what is tested
    monkeypatch.setattr(
        NyuDepthV2Labeled, "_generate_examples", lambda self, indices, whole=NyuDepthV2Labeled._generate_examples: (
            itertools.islice(whole(self, indices), 2)
        )
    )  # fmt: skip
    config = DataConfig(dataset="nyu_depth_v2_labeled", data_dir=tmp_path)
    for split, start in (("train", 0), ("eval", nyu_depth.COUNT - 3)):
        source = open_source(config, DepthImages(4), split)
        assert len(source) == 2
        example = source[1] or {}
        np.testing.assert_array_equal(example["image"], images[start + 1].transpose(2, 1, 0))
        np.testing.assert_allclose(example["depth"], depths[start + 1].T, atol=0.00051)


def test_the_published_split_is_1000_and_449():
    assert (nyu_depth.TRAIN_COUNT, nyu_depth.COUNT - nyu_depth.TRAIN_COUNT) == (1000, 449)
    assert rooms.SIZES["train"] >= 600
    assert rooms.SIZES["test"] == 100


def test_nyu_depth_without_h5py_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / nyu_depth.FILE).touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with (
        pytest.raises(UserError, match=r"h5py.* is not installed. Install it: pip install 'ddf-jax\[nyu\]'"),
        open_labeled(tmp_path / nyu_depth.FILE),
    ):
        pass


def test_a_missing_or_wrong_nyu_file_says_what_to_put_where(tmp_path: Path):
    config = DataConfig(dataset="nyu_depth_v2_labeled", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"downloads/manual/nyu_.*mat, got no such file\. Download nyu_.*put it there"):
        open_source(config, DepthImages(4), "train")
    file = tmp_path / nyu_depth.FILE
    file.write_bytes(b"a page that says: not found")
    with (
        pytest.raises(ValueError, match=r"must be the published HDF5 file, got one that cannot be read"),
        open_labeled(file),
    ):
        pass
    write_mat(file, count=3)
    with (
        pytest.raises(ValueError, match=r"must hold `images` \[1449, 3, W, H\] .*, got \(3, 3, 4, 5\)"),
        open_labeled(file),
    ):
        pass
