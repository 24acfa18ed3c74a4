"""Images for tests of transforms."""

import numpy as np


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Waves in three colours."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + y / 31), np.cos(x / 23), np.sin(y / 19)]
    return (127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)
