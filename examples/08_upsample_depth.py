"""Raises a depth map to the resolution of a photograph, by a classical method and, given a run, by its network.

    python examples/08_upsample_depth.py                                     # a rendered room
    python examples/08_upsample_depth.py photo.png depth.png                 # yours: 16-bit millimetres, 0 = unknown
    python examples/08_upsample_depth.py photo.png depth.png runs/joint_depth_4x

The photograph of H×W pixels has S times the resolution of the depth map, ⌈H/S⌉×⌈W/S⌉.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ddf_jax
from ddf_jax.data.datasets.rendering import render_rooms
from ddf_jax.data.decode import encode_depth
from ddf_jax.data.reading import read_depth, read_rgb
from ddf_jax.functional import bicubic_upsample, joint_bilateral_upsample
from ddf_jax.training.run import upsample

OUT = Path("runs/depth")


def rendered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph in [0, 1], every fourth sample of its depth in metres, with a hole, and all of its depth."""
    [view] = render_rooms(seed=3, count=1, height=120, width=160)
    low = view.depth[2::4, 2::4].copy()
    low[10:14, 20:24] = 0
    return view.image.astype(np.float32) / 255, low, view.depth


def main(image: np.ndarray, low: np.ndarray, truth: np.ndarray | None, run: str | None) -> None:
    height, width = image.shape[:2]
    scale = -(-height // low.shape[0])
    bicubic = jax.jit(functools.partial(bicubic_upsample, height=height, width=width, scale=scale))
    joint_bilateral = jax.jit(functools.partial(joint_bilateral_upsample, scale=scale))
    depth, photo = low[None, ..., None], image[None]  # [1, h, w, 1], [1, H, W, 3]
    found: dict[str, Any] = {
        "bicubic": bicubic(depth)[0, ..., 0],
        "joint_bilateral": joint_bilateral(depth, photo)[0, ..., 0],
    }
    if run is not None:
        found["network"] = upsample(ddf_jax.load_run(run), image, low)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, depth in found.items():
        (OUT / f"{name}.png").write_bytes(encode_depth(np.clip(depth, 0.001, 65.534)).getvalue())
        error = "" if truth is None else f", RMSE {100 * np.sqrt(np.mean((depth - truth) ** 2)):.1f} cm"
        print(f"{OUT / name}.png: {height}×{width}, {scale} times {low.shape[0]}×{low.shape[1]}{error}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        photo, depth_map, *runs = sys.argv[1:]
        main(read_rgb(Path(photo)), read_depth(Path(depth_map)), None, runs[0] if runs else None)
    else:
        main(*rendered(), None)
