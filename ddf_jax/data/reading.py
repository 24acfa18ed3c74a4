"""A user's image files, prepared as a run's evaluation images are."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ddf_jax.data.config import DEFAULT_DECODING, DataConfig, Decoding
from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image, image_to_array
from ddf_jax.data.info import DataInfo
from ddf_jax.data.transforms import evaluation_transforms
from ddf_jax.errors import UserError

UserImage = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, an image of pillow's, or pixels: uint8 [H, W] or [H, W, C], C = 1 (grey) or 3 (RGB)."""


def read_image(image: UserImage, info: DataInfo, config: DataConfig) -> np.ndarray:
    """A user's image as a classifier sees it in evaluation, float32 `[H, W, C]`.

    Args:
        image: a file or pixels.
        info: the run's data.
        config: the run's recipe for them.

    Raises:
        UserError: as `read_pixels`.
    """
    example = {"image": read_pixels(image, info, config.decoding)}
    for transform in evaluation_transforms(config, info.channels):
        example = transform.map(example)
    return example["image"]


def read_pixels(image: UserImage, info: DataInfo, decoding: Decoding = DEFAULT_DECODING) -> np.ndarray:
    """A user's image as it is stored in a dataset: upright, with the run's channels, uint8 `[H, W, C]`.

    Raises:
        UserError: the file cannot be read or is no image, or the array is not one of pixels.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image, info.channels, decoding)
    return _decoded(image, info.channels, decoding)


def read_rgb(file: Path, decoding: Decoding = DEFAULT_DECODING) -> np.ndarray:
    """A user's RGB image as a network for depth upsampling sees it, float32 `[H, W, 3]` in [0, 1].

    The pixels are as stored, as `read_depth` reads them: turning one of the two would tear the scene apart.

    Raises:
        UserError: the file cannot be read or is no image.
    """
    return _decoded(file, 3, decoding, upright=False).astype(np.float32) / np.float32(255)


def read_depth(file: Path, units_per_metre: float | None = None) -> np.ndarray:
    """A user's depth map in metres, float32 `[H, W]`, 0 where nothing was measured, read by `decode_depth`.

    Raises:
        UserError: the file cannot be read, is no depth map, or nothing was measured at all.
    """
    try:
        depth = decode_depth(file.read_bytes(), units_per_metre)
    except (OSError, CorruptImageError) as error:
        raise UserError(
            f"{file} must be a depth map, a grey PNG, TIFF or PGM of more than 8 bits or an NPY array, got {error}."
        ) from error
    if not depth.any():
        raise UserError(f"{file} must have a pixel that was measured, got holes everywhere.")
    return depth


def _decoded(file: str | os.PathLike[str], channels: int, decoding: Decoding, *, upright: bool = True) -> np.ndarray:
    try:
        return decode_image(Path(file).read_bytes(), channels, decoding, upright=upright)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {os.fspath(file)}.") from error
    except (OSError, CorruptImageError) as error:
        raise UserError(f"{os.fspath(file)} must be an image file that pillow can read, got {error}.") from error


def _from_pillow(image: Image.Image, channels: int, decoding: Decoding) -> np.ndarray:
    try:
        return image_to_array(image, channels, decoding.sample_max)
    except CorruptImageError as error:
        raise UserError(f"A pillow image must have a known range of samples, got {error}.") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise UserError(
            f"An image as an array must be uint8 [H, W] or [H, W, C] with C = 1 or 3, got {array.dtype} {array.shape}."
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
