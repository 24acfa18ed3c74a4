"""A user's image files, prepared as a run's evaluation images are."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ddf_jax.data.decode import CorruptImageError, decode_depth, decode_image, image_to_array
from ddf_jax.data.info import DataInfo
from ddf_jax.data.transforms import evaluation_transforms
from ddf_jax.errors import UserError

UserImage = str | os.PathLike[str] | Image.Image | np.ndarray
"""A file, an image of pillow's, or pixels: uint8 [H, W] or [H, W, C], C = 1 (grey) or 3 (RGB)."""


def read_image(image: UserImage, info: DataInfo) -> np.ndarray:
    """A user's image as a classifier sees it in evaluation, float32 `[H, W, C]`.

    Raises:
        UserError: the file cannot be read or is no image, or the array is not one of pixels.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        array = image_to_array(image, info.channels)
    else:
        array = _decoded(image, info.channels)
    example = {"image": array}
    for transform in evaluation_transforms(info.image_size, info.channels):
        example = transform.map(example)
    return example["image"]


def read_rgb(file: Path) -> np.ndarray:
    """A user's RGB image as a network for depth upsampling sees it, float32 `[H, W, 3]` in [0, 1].

    Raises:
        UserError: the file cannot be read or is no image.
    """
    return _decoded(file, 3).astype(np.float32) / np.float32(255)


def read_depth(file: Path) -> np.ndarray:
    """A user's depth map in metres, float32 `[H, W]`, 0 where nothing was measured.

    Raises:
        UserError: the file cannot be read, is no grey PNG of 16 bits, or nothing was measured at all.
    """
    try:
        depth = decode_depth(file.read_bytes())
    except (OSError, CorruptImageError) as error:
        raise UserError(f"{file} must be a grey PNG of 16 bits, depth in millimetres, got {error}.") from error
    if not depth.any():
        raise UserError(f"{file} must have a pixel that was measured, got 0 everywhere.")
    return depth


def _decoded(file: str | os.PathLike[str], channels: int) -> np.ndarray:
    try:
        return decode_image(Path(file).read_bytes(), channels)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {os.fspath(file)}.") from error
    except (OSError, CorruptImageError) as error:
        raise UserError(f"{os.fspath(file)} must be an image file that pillow can read, got {error}.") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise UserError(
            f"An image as an array must be uint8 [H, W] or [H, W, C] with C = 1 or 3, got {array.dtype} {array.shape}."
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
