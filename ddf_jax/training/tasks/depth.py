"""The task of finding the depth of every pixel of a picture from depth of lower resolution."""

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ddf_jax.data.sources import DataInfo
from ddf_jax.functional import bicubic_upsample, guided_upsample, joint_bilateral_upsample
from ddf_jax.training.losses import charbonnier, root_mean_square
from ddf_jax.training.tasks.task import Batch, Outcome, Scores

# Of errors in metres, where they count, and the share of the training that is over. Charbonnier's ε grows from 1 cm to
# 1 m: at first large errors, which are few, do not drown the others; in the end the loss is half the squared error that
# is scored.
LOSSES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "rmse": lambda errors, mask, progress: root_mean_square(errors, mask),
    "charbonnier": lambda errors, mask, progress: charbonnier(errors, mask, epsilon=0.01 ** (1 - progress)),
}
_CENTIMETRES = 100.0
_DRAWN = 4  # examples of a picture


class DepthCounts(NamedTuple):
    """Sums over the measured pixels of a batch's real examples."""

    squares: jax.Array  # [] float32, of errors in metres
    pixels: jax.Array  # [] int32
    examples: jax.Array  # [] int32


@dataclasses.dataclass(frozen=True)
class DepthUpsampling:
    """Root of the mean squared error over the measured pixels of the whole set; training may minimise another loss.

    A batch's `low` is depth of lower resolution [B, ⌈H/S⌉, ⌈W/S⌉, 1] and its `depth` the truth [B, H, W, 1], float32 in
    metres and 0 where nothing was measured. The model answers `model(image, low)` [B, H, W, 1].
    """

    scale: int
    """S"""
    loss: Literal["rmse", "charbonnier"] = "rmse"
    """What training minimises."""
    quality = "rmse"
    draws = True

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"`depth_loss` must be one of {', '.join(LOSSES)}, got {self.loss!r}.")

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return {"scale": self.scale, "in_channels": info.channels}

    def shapes(self, info: DataInfo, *, training: bool) -> dict[str, tuple[tuple[int, ...], Any]]:
        square = (info.image_size, info.image_size)
        height, width = square if training or info.eval_shape is None else info.eval_shape
        return {
            "image": ((height, width, info.channels), jnp.float32),
            "low": ((-(-height // self.scale), -(-width // self.scale), 1), jnp.float32),
            "depth": ((height, width, 1), jnp.float32),
            "mask": ((), jnp.bool),
        }

    def outcome(self, model: Any, batch: Batch, progress: jax.Array) -> Outcome:
        errors, measured = model(batch["image"], batch["low"]) - batch["depth"], _measured(batch)
        rmse = root_mean_square(errors, measured)
        return Outcome(
            loss=LOSSES[self.loss](errors, measured, progress),
            quality=rmse * _CENTIMETRES,
            faults={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "depth that is not finite or negative": ~jnp.all(jnp.isfinite(batch["depth"]) & (batch["depth"] >= 0)),
            },
        )

    def count(self, model: Any, batch: Batch) -> DepthCounts:
        errors = model(batch["image"], batch["low"]) - batch["depth"]
        measured = _measured(batch)
        rows = jnp.sum(jnp.square(errors), axis=(2, 3), where=measured)  # row by row, so that sums lose no digits
        return DepthCounts(
            squares=jnp.sum(jnp.sum(rows, axis=1)),
            pixels=jnp.sum(measured, dtype=jnp.int32),
            examples=jnp.sum(batch["mask"], dtype=jnp.int32),
        )

    def scores(self, totals: DepthCounts) -> Scores:
        squares, pixels, examples = map(float, totals)
        mean = squares / max(pixels, 1.0)
        rmse = math.sqrt(mean) * _CENTIMETRES if math.isfinite(mean) else None
        return {"test_rmse": rmse, "test_pixels": int(pixels), "test_examples": int(examples)}

    def progress(self, loss: float, quality: float) -> str:
        del loss
        return f"RMSE {quality:.2f} cm"

    def headline(self, scores: Mapping[str, Any]) -> str:
        rmse = scores["test_rmse"]
        return "test RMSE not finite" if rmse is None else f"test RMSE {rmse:.2f} cm"

    def details(self, scores: Mapping[str, Any]) -> str:
        return f"{scores['test_pixels']:,} pixels of {scores['test_examples']} pictures"

    def answer(self, model: Any, batch: Batch) -> jax.Array:
        return model(batch["image"], batch["low"])

    def draw(self, batch: Mapping[str, np.ndarray], answer: np.ndarray) -> bytes:
        shown = {name: np.asarray(values[:_DRAWN]) for name, values in batch.items()}
        return draw_depth(shown, classical_peers(shown, self.scale) | {"ours": answer[:_DRAWN]})


def classical_peers(batch: Mapping[str, np.ndarray], scale: int) -> dict[str, np.ndarray]:
    """What upsampling without learning makes of a batch, by name."""
    found = _classical_peers(jnp.asarray(batch["image"]), jnp.asarray(batch["low"]), scale)
    return {name.replace("_", " "): np.asarray(found[name]) for name in ("bicubic", "guided_filter", "joint_bilateral")}


def draw_depth(batch: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> bytes:
    """A row for each example: picture, input, every answer with its RMSE, truth, and the last answer's error. PNG."""
    image, low, truth = batch["image"], batch["low"], batch["depth"]
    columns = ["picture", "input", *answers, "truth", f"error of {list(answers)[-1]}"]
    count, (height, width) = len(image), image.shape[1:3]
    size = (1.45 * len(columns), 1.45 * height / width * count + 0.25)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for row, axes in enumerate(grid):
        measured = truth[row] > 0
        known = truth[row][measured] if measured.any() else np.ones(1, np.float32)
        depth_range = {"cmap": "viridis", "vmin": known.min(), "vmax": known.max()}
        error = np.where(measured, np.abs(list(answers.values())[-1][row] - truth[row]), 0)
        panels = [(image[row], {}), (np.ma.masked_equal(low[row], 0), depth_range)]
        panels += [(answer[row], depth_range) for answer in answers.values()]
        panels += [(np.ma.masked_equal(truth[row], 0), depth_range), (error, {"cmap": "magma", "vmin": 0, "vmax": 0.5})]
        for axis, title, (panel, options) in zip(axes, columns, panels, strict=True):
            axis.imshow(panel, interpolation="nearest", aspect="auto", **options)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=7, pad=2)
            if title in answers:
                rmse = (
                    np.sqrt(np.mean(np.square((answers[title][row] - truth[row])[measured]))) if measured.any() else 0
                )
                label = f"{_CENTIMETRES * rmse:.1f} cm"
                axis.text(0.03, 0.04, label, transform=axis.transAxes, fontsize=6, color="white")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


@functools.partial(jax.jit, static_argnums=2)
def _classical_peers(image: jax.Array, low: jax.Array, scale: int) -> dict[str, jax.Array]:
    return {
        "bicubic": bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale),
        "guided_filter": guided_upsample(low, image, scale=scale),
        "joint_bilateral": joint_bilateral_upsample(low, image, scale=scale),
    }


def _measured(batch: Batch) -> jax.Array:
    return (batch["depth"] > 0) & batch["mask"][:, None, None, None]
