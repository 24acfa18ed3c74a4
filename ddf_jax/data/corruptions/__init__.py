"""The common corruptions of ImageNet-C: fifteen and four more in four families, each at five severities.

Written after the definitions and with the parameters of the authors' code (`severities`), with NumPy, SciPy and Pillow.
Of what is there done otherwise: the frost is generated, as its photographs have licences of their own; glass blur swaps
pixels, as the paper states; elastic transform resamples once instead of twice; the edges of water drops are those of
their shapes; results are rounded.

Reference: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv:1903.12261.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddf_jax.data.corruptions import blur, digital, noise, weather
from ddf_jax.data.corruptions.severities import PARAMETERS, SEVERITIES, nearest_side
from ddf_jax.errors import UserError

__all__ = ["EXTRA", "FAMILIES", "SEVERITIES", "corrupt"]

FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
"""The corruptions of each family."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that are not among the fifteen that mean corruption errors are published for."""

_MODULES = {"noise": noise, "blur": blur, "weather": weather, "digital": digital}
_NUMBERS = {name: number for number, name in enumerate(PARAMETERS)}
_FUNCTIONS: dict[str, Callable[[np.ndarray, Any, np.random.Generator], np.ndarray]] = {
    name: getattr(_MODULES[family], name) for family, names in FAMILIES.items() for name in names
}


def corrupt(image: np.ndarray, name: str, severity: int, *, seed: int = 0, index: int = 0) -> np.ndarray:
    """A corrupted picture, uint8 [H, W, C]; what is random in it depends on `seed`, `index`, `name` and `severity`.

    The parameters are those published for the side of 32, 64 or 224 pixels that is nearest to the shorter side of the
    picture; lengths are not scaled. Computed in float64, then cut to [0, 255] and rounded.

    Args:
        image: uint8 [H, W, C], C = 1 (grey) or 3 (RGB), at least 8 pixels on each side.
        name: one of `FAMILIES`.
        severity: 1 to 5.
        seed: of the evaluation.
        index: of the picture.

    Raises:
        UserError: there is no such corruption or severity, or the picture is not one.

    >>> grey = np.full((32, 32, 3), 100, np.uint8)
    >>> corrupt(grey, "brightness", 5)[0, 0]  # 30 % of 255 more
    array([176, 176, 176], dtype=uint8)
    """
    if name not in _FUNCTIONS:
        raise UserError(f"`name` must be one of {', '.join(_FUNCTIONS)}, got {name!r}.")
    if severity not in SEVERITIES:
        raise UserError(f"`severity` must be 1, 2, 3, 4 or 5, got {severity!r}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or min(image.shape[:2]) < 8:
        raise UserError(
            f"`image` must be uint8 [H, W, 1 or 3] of 8 pixels or more a side, got {image.dtype} {image.shape}."
        )
    parameters = PARAMETERS[name][nearest_side(*image.shape[:2])][severity - 1]
    rng = np.random.default_rng([seed, index, _NUMBERS[name], severity])
    corrupted = _FUNCTIONS[name](image / 255, parameters, rng)
    return np.round(255 * np.clip(corrupted, 0, 1)).astype(np.uint8)
