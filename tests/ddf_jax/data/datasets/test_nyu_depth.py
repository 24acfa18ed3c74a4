"""The labelled NYU Depth v2: its published layout and split, and files that are refused."""

import itertools
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.datasets import nyu_depth
from ddf_jax.data.datasets.nyu_depth import NyuDepthV2Labeled, open_labeled
from ddf_jax.data.examples import DepthImages
from ddf_jax.data.sources import open_source
from ddf_jax.errors import UserError


def write_mat(path: Path, count: int = nyu_depth.COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Writes a file with the published layout and images of 5 rows and 4 columns."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 3, 4, 5), np.uint8)
    depths = rng.uniform(0.5, 9, (count, 4, 5)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"] = images, depths
    return images, depths


def test_nyu_depth_is_read_from_the_published_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images, depths = write_mat(tmp_path / "downloads" / "manual" / nyu_depth.FILE)
    monkeypatch.setattr(nyu_depth, "TRAIN_COUNT", nyu_depth.COUNT - 3)  # most images are not read
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


def test_nyu_depth_without_h5py_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / nyu_depth.FILE).touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with (
        pytest.raises(UserError, match=r"h5py.* is not installed. Install it: pip install 'ddf-jax\[nyu\]'"),
        open_labeled(tmp_path / nyu_depth.FILE),
    ):
        pass


def test_a_missing_or_wrong_nyu_file_states_what_to_put_where(tmp_path: Path):
    config = DataConfig(dataset="nyu_depth_v2_labeled", data_dir=tmp_path)
    with pytest.raises(UserError, match=r"downloads/manual/nyu_.*mat, got no such file\. Download nyu_.*put it there"):
        open_source(config, DepthImages(4), "train")
    file = tmp_path / nyu_depth.FILE
    file.write_bytes(b"a page: not found")
    with (
        pytest.raises(UserError, match=r"must be the published HDF5 file, got one that cannot be read"),
        open_labeled(file),
    ):
        pass
    write_mat(file, count=3)
    with (
        pytest.raises(UserError, match=r"must hold `images` \[1449, 3, W, H\] .*, got \(3, 3, 4, 5\)"),
        open_labeled(file),
    ):
        pass
