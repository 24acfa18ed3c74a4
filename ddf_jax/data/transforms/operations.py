"""The operations that AutoAugment and RandAugment choose from, on pillow's images in grey or RGB."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


class Canvas(NamedTuple):
    """How pixels that an operation moves are found.

    Args:
        resampling: pillow's filter between pixels.
        fill: what comes in at the border, a number from 0 to 255 for each channel.
    """

    resampling: Image.Resampling
    fill: tuple[int, ...]


class Operation(NamedTuple):
    """An operation and its argument.

    Args:
        apply: (image, argument, canvas) to the image.
        argument: from the strength, in [0, 10].
        signed: whether the argument is negated every other time.
    """

    apply: Callable[[Image.Image, Any, Canvas], Image.Image]
    argument: Callable[[float], float] = lambda strength: strength
    signed: bool = False

    def __call__(self, image: Image.Image, strength: float, canvas: Canvas, rng: np.random.Generator) -> Image.Image:
        argument = self.argument(strength)
        if self.signed and rng.random() < 0.5:
            argument = -argument
        return self.apply(image, argument, canvas)


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, canvas.resampling, fillcolor=_fill(image, canvas)
    )


def _fill(image: Image.Image, canvas: Canvas) -> Any:
    return canvas.fill[0] if image.mode == "L" else canvas.fill


def _rotate(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return image.rotate(degrees, canvas.resampling, fillcolor=_fill(image, canvas))


def _solarize_add(image: Image.Image, amount: int, canvas: Canvas) -> Image.Image:
    """Adds to the pixels below 128."""
    del canvas
    table = [min(255, value + amount) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _posterize(image: Image.Image, bits: int, canvas: Canvas) -> Image.Image:
    """Keeps the upper bits, 0 to 8."""
    del canvas
    return image.point([value >> 8 - bits << 8 - bits for value in range(256)] * len(image.getbands()))


def _enhance(kind: Callable[[Image.Image], Any]) -> Operation:
    """A blend with what lacks the property, by a factor from 0.1 to 1.9."""
    return Operation(lambda image, factor, _: kind(image).enhance(factor), lambda strength: strength / 10 * 1.8 + 0.1)


def _enhance_increasing(kind: Callable[[Image.Image], Any]) -> Operation:
    """The same by a factor 1 ± up to 0.9."""
    return Operation(
        lambda image, change, _: kind(image).enhance(max(0.1, 1.0 + change)),
        lambda strength: strength / 10 * 0.9,
        signed=True,
    )


def _bits(strength: float) -> int:
    return int(strength / 10 * 4)


def _threshold(strength: float) -> int:
    return min(256, int(strength / 10 * 256))


def _solarize(image: Image.Image, threshold: int, canvas: Canvas) -> Image.Image:
    """Inverts the pixels from a threshold on."""
    del canvas
    return ImageOps.solarize(image, threshold)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": Operation(lambda image, *_: ImageOps.autocontrast(image)),
    "Equalize": Operation(lambda image, *_: ImageOps.equalize(image)),
    "Invert": Operation(lambda image, *_: ImageOps.invert(image)),
    "Rotate": Operation(_rotate, lambda strength: strength / 10 * 30, signed=True),
    "Posterize": Operation(_posterize, _bits),
    "PosterizeIncreasing": Operation(_posterize, lambda strength: 4 - _bits(strength)),
    "PosterizeOriginal": Operation(_posterize, lambda strength: 4 + _bits(strength)),
    "Solarize": Operation(_solarize, _threshold),
    "SolarizeIncreasing": Operation(_solarize, lambda strength: 256 - _threshold(strength)),
    "SolarizeAdd": Operation(_solarize_add, lambda strength: min(128, int(strength / 10 * 110))),
    "Color": _enhance(ImageEnhance.Color),
    "ColorIncreasing": _enhance_increasing(ImageEnhance.Color),
    "Contrast": _enhance(ImageEnhance.Contrast),
    "ContrastIncreasing": _enhance_increasing(ImageEnhance.Contrast),
    "Brightness": _enhance(ImageEnhance.Brightness),
    "BrightnessIncreasing": _enhance_increasing(ImageEnhance.Brightness),
    "Sharpness": _enhance(ImageEnhance.Sharpness),
    "SharpnessIncreasing": _enhance_increasing(ImageEnhance.Sharpness),
    "ShearX": Operation(lambda i, s, c: _affine(i, (1, s, 0, 0, 1, 0), c), lambda strength: strength / 10 * 0.3, True),
    "ShearY": Operation(lambda i, s, c: _affine(i, (1, 0, 0, s, 1, 0), c), lambda strength: strength / 10 * 0.3, True),
    "TranslateX": Operation(
        lambda i, s, c: _affine(i, (1, 0, s * i.width, 0, 1, 0), c), lambda strength: strength / 10 * 0.45, True
    ),
    "TranslateY": Operation(
        lambda i, s, c: _affine(i, (1, 0, 0, 0, 1, s * i.height), c), lambda strength: strength / 10 * 0.45, True
    ),
}
"""By name. The arguments are those of timm, which are the papers' but for the operations `…Increasing`, whose change
grows with the strength, and translations by a share of the image instead of pixels."""
