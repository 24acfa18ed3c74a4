"""The image files of a set, some of which may be unreadable."""

import concurrent.futures
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ddf_jax.data.config import Decoding
from ddf_jax.data.crop import Crop
from ddf_jax.data.decode import CorruptImageError, Decoded, decode, decode_crop
from ddf_jax.errors import DataError

_CHECKED_FILES = 1000  # decoded before the first batch: a small folder is known exactly, a large one costs seconds
_CHECKING_THREADS = 8  # pillow decodes without holding Python's lock

_DARK = 1 / 16  # samples of 12 bits in files of 16 never exceed this share

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ImageFiles:
    """Images by index, uint8 [H, W, 3], or None for an unreadable file.

    A file counts as unreadable when it is missing, forbidden, cannot be decoded, or has another size than is known of
    it. Decoding every file first would take hours on a large folder, so they are found in two ways: 1,000 files, evenly
    spread, are decoded here, the others when they are read. Each is logged once with its reason and kept in `corrupt`,
    and as soon as there are more of them than `max_corrupt_share` of all files, a DataError names some. Which files are
    unreadable depends on nothing but the files, so every process and worker sees the same data. Other I/O errors, which
    may pass, are raised.

    Args:
        folder: where the files lie.
        files: relative to it.
        max_corrupt_share: share of the files that may be unreadable.
        decoding: how they are decoded.
        sizes: heights and widths [N, 2] that the images must have: turned as their EXIF orientation states or, where
            only that fits, as they are stored. None: any, turned.
    """

    channels = 3

    def __init__(
        self,
        folder: Path,
        files: Sequence[str],
        max_corrupt_share: float,
        decoding: Decoding,
        sizes: np.ndarray | None = None,
    ):
        self.folder = folder
        self.files = files
        self.max_corrupt_share = max_corrupt_share
        self.corrupt: dict[str, str] = {}
        """Path below the folder -> reason, for every unreadable file found so far in this process."""
        self._root = os.fspath(folder)
        self._decoding = decoding
        self._sizes = sizes
        self._used: list[float] = []  # of each image of more than 8 bits, the largest sample as a share of its range
        self._check_some()

    def describe(self, index: int) -> str:
        return str(self.folder / self.files[index])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray | None:
        return self._checked(self._read(index))

    def crop(self, index: int, crop: Crop) -> Image.Image | None:
        """What `crop` makes of an image."""
        return self._checked(self._try(index, lambda data: decode_crop(data, self.channels, crop, self._decoding)))

    def _read(self, index: int) -> np.ndarray | None:
        decoded = self._try(index, lambda data: self._decode(index, data))
        if decoded is None:
            return None
        if decoded.used is not None:
            self._used.append(decoded.used)
        return decoded.image

    def _try(self, index: int, decode: Callable[[bytes], T]) -> T | None:
        file = self.files[index]
        try:
            with open(os.path.join(self._root, file), "rb") as opened:  # a Path for each would take as long as a read
                data = opened.read()
            return decode(data)
        except (CorruptImageError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
            if file not in self.corrupt:
                self.corrupt[file] = str(error)
                _log.warning("unreadable image file %s (%s), number %d", self.folder / file, error, len(self.corrupt))
            return None

    def _checked(self, image: T | None) -> T | None:
        if image is None:
            self._check_share()
        return image

    def _decode(self, index: int, data: bytes) -> Decoded:
        decoded = decode(data, self.channels, self._decoding)
        if self._sizes is None:
            return decoded
        expected, found = tuple(self._sizes[index].tolist()), decoded.image.shape[:2]
        if found == expected[::-1] != expected:
            decoded = decode(data, self.channels, self._decoding, upright=False)
        if decoded.image.shape[:2] != expected:
            raise CorruptImageError(
                f"{found[0]}×{found[1]} pixels, not {expected[0]}×{expected[1]} as its annotations state"
            )
        return decoded

    def _check_some(self) -> None:
        spread = np.linspace(0, len(self) - 1, min(len(self), _CHECKED_FILES)).astype(int)
        with concurrent.futures.ThreadPoolExecutor(_CHECKING_THREADS) as threads:
            for _ in threads.map(self._read, spread.tolist()):
                pass
        if self.corrupt:
            _log.warning(
                "%d of %d image files checked in %s are unreadable", len(self.corrupt), len(spread), self.folder
            )
        if self._used and max(self._used) < _DARK and self._decoding.sample_max is None:
            _log.warning(
                "%d image files of more than 8 bits in %s are almost black: no sample exceeds %.4f of the range. "
                "Is it that of fewer bits? For 12: --data.sample-max 4095",
                len(self._used), self.folder, max(self._used),
            )  # fmt: skip
        if not self._used and self._decoding.sample_max is not None:
            _log.warning(
                "`data.sample_max` has no effect: of %d images checked in %s all have 8 bits", len(spread), self.folder
            )
        self._check_share()

    def _check_share(self) -> None:
        if len(self.corrupt) <= self.max_corrupt_share * len(self):
            return
        examples = ", ".join(sorted(self.corrupt)[:5])
        raise DataError(
            f"At most {self.max_corrupt_share:.2%} of the {len(self)} image files in {self.folder} may be unreadable, "
            f"got {len(self.corrupt)} so far, such as {examples}. Replace or delete them, or raise "
            "`data.max_corrupt_share`."
        )
