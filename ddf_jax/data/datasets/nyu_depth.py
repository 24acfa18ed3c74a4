"""The TFDS dataset `nyu_depth_v2_labeled`: the labelled part of NYU Depth v2, from its authors' file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from ddf_jax.data.decode import encode_depth, encode_png
from ddf_jax.errors import UserError

FILE = "nyu_depth_v2_labeled.mat"
HOMEPAGE = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"
COUNT, TRAIN_COUNT = 1449, 1000


class NyuDepthV2Labeled(tfds.core.GeneratorBasedBuilder):
    """1,449 indoor images of 480×640 pixels with depth from a Kinect. The authors filled its holes.

    **Split.** The first 1,000 are for training, the other 449 for testing, as in papers on joint depth upsampling (Su
    et al., CVPR 2019; Zhou et al., CVPR 2021). Depth is stored in whole millimetres, as PNG of 16 bits.

    Source: N. Silberman et al., "Indoor Segmentation and Support Inference from RGBD Images", ECCV 2012.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {FILE} (2.8 GB, from {HOMEPAGE}) into the manual directory."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The 1,449 labelled RGB-D pairs of NYU Depth v2.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "depth": tfds.features.Image(shape=(None, None, 1), dtype=np.uint16, encoding_format="png"),
                }
            ),
            supervised_keys=("image", "depth"),
            homepage=HOMEPAGE,
            disable_shuffling=True,
        )

    @property
    def manual_file(self) -> Path:
        """The path of the published file, in TFDS's folder for manual downloads."""
        return Path(self.data_dir_root) / "downloads" / "manual" / FILE

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, Any]]]:
        del dl_manager  # nothing is downloaded
        with open_labeled(self.manual_file):
            pass  # a wrong file is refused before anything is written
        return {
            "train": self._generate_examples(range(TRAIN_COUNT)),
            "test": self._generate_examples(range(TRAIN_COUNT, COUNT)),
        }

    def _generate_examples(self, indices: range) -> Iterator[tuple[int, Any]]:
        with open_labeled(self.manual_file) as (images, depths):
            for index in indices:
                image, depth = images[index].transpose(2, 1, 0), depths[index].T  # MATLAB's order is columns first
                yield index, {"image": encode_png(image.copy()), "depth": encode_depth(depth)}


@contextlib.contextmanager
def open_labeled(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens the published file: `images` [1449, 3, W, H] uint8 and `depths` [1449, W, H] floats in metres.

    Raises:
        UserError: h5py is not installed, the file does not exist, or it is another file.
    """
    advice = f"Download {FILE} (2.8 GB) from {HOMEPAGE} and put it there."
    if not path.is_file():
        raise UserError(f"NYU Depth v2 must lie in {path}, got no such file. {advice}")
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "NYU Depth v2 is an HDF5 file, and h5py, which reads it, is not installed. Install it: "
            "pip install 'ddf-jax[nyu]'"
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(
            f"{path} must be the published HDF5 file, got one that cannot be read ({error}). {advice}"
        ) from None
    with file:
        images, depths = file.get("images"), file.get("depths")
        shapes = [item.shape if isinstance(item, h5py.Dataset) else "nothing" for item in (images, depths)]
        match shapes:
            case [(count, 3, *size), (depth_count, w, h)] if count == depth_count == COUNT and size == [w, h]:
                yield images, depths
            case _:
                raise UserError(
                    f"{path} must hold `images` [{COUNT}, 3, W, H] and `depths` [{COUNT}, W, H], got {shapes[0]} and "
                    f"{shapes[1]}. {advice}"
                )
