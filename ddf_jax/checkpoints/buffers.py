"""The constants that official networks keep in their files and ours compute."""

import re
from collections.abc import Mapping

import numpy as np

from ddf_jax.checkpoints.layouts import COUNTER, FREQUENCY_TABLE, POSITION_INDEX
from ddf_jax.layers.fca import FREQUENCIES, MAP_SIZES, cosines

_FCA = re.compile(r"((?:.+\.)?stages\.(\d+)\.\d+\.attention)\.gate\.kernel")
_AXIAL = re.compile(r"(.+\.(?:height|width))\.relative")


def official_buffers(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By our names, what the official network has besides these tensors: the batch counters of BatchNorm, which are 0,
    FcaNet's cosines for the maps of images of 224 pixels, and Axial-DeepLab's indices of relative positions."""
    buffers: dict[str, np.ndarray] = {}
    for name, tensor in own.items():
        if name.rpartition(".")[2] == "var":
            buffers[name.removesuffix("var") + COUNTER] = np.zeros((), np.int64)
        elif match := _FCA.fullmatch(name):
            size = MAP_SIZES[min(int(match[2]), len(MAP_SIZES) - 1)]
            buffers[f"{match[1]}.{FREQUENCY_TABLE}"] = _frequency_table(size, tensor.shape[1])
        elif match := _AXIAL.fullmatch(name):
            buffers[f"{match[1]}.{POSITION_INDEX}"] = _position_index((tensor.shape[0] + 1) // 2)
    return buffers


def _frequency_table(size: int, channels: int) -> np.ndarray:
    """[C, size, size]"""
    rows, columns = (cosines(frequencies, size).T for frequencies in zip(*FREQUENCIES, strict=True))
    table = (rows[:, :, None] * columns[:, None]).astype(np.float32)
    return table.repeat(channels // len(FREQUENCIES), axis=0)


def _position_index(length: int) -> np.ndarray:
    """[length²], row-major: i - j + length - 1."""
    places = np.arange(length)
    return (places[:, None] - places + length - 1).reshape(-1)
