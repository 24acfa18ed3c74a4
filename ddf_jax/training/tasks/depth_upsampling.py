"""Joint (RGB-guided) depth upsampling: depth of an image's resolution from depth of lower resolution."""

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.functional import bicubic_upsample, guided_upsample, joint_bilateral_upsample
from ddf_jax.training.tasks import Batch, Model, Scores, StepMetrics, Task

if TYPE_CHECKING:
    from ddf_jax.data.sources import Examples

_CENTIMETRES = 100.0
_DRAWN = 4  # examples of a picture


class DepthSums(NamedTuple):
    """Sums over the measured pixels of a batch's real examples."""

    squares: jax.Array  # [] float32, of errors in metres
    pixels: jax.Array  # [] int32
    examples: jax.Array  # [] int32


@dataclasses.dataclass(frozen=True)
class DepthUpsampling(Task):
    """Root of the mean squared error over the measured pixels of the whole set; training may minimise another loss.

    A batch has `image` [B, H, W, C], `low`, depth of lower resolution [B, ⌈H/S⌉, ⌈W/S⌉, 1], and the true `depth`
    [B, H, W, 1], float32 in metres and 0 where nothing was measured. The model is called as `model(image, low)` and
    returns depth [B, H, W, 1].
    """

    scale: int = 4
    """S: how many times lower in each direction the resolution of the given depth is."""
    loss: Literal["rmse", "charbonnier"] = "rmse"
    """Of the errors in metres: the root of their mean square; or a mean that counts the squares of errors below ε and
    the absolute values of those above, with ε from 1 cm at the first step, geometrically, to 1 m at the last."""

    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    model_task: ClassVar[str] = "depth_upsampling"
    inputs: ClassVar[tuple[str, ...]] = ("image", "low")
    used_by: ClassVar[str] = "`ddf upsample` or `ddf_jax.training.run.upsample`"

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise UserError(f"`scale` must be at least 1, got {self.scale}.")
        if self.loss not in LOSSES:
            raise UserError(f"`loss` must be one of {', '.join(LOSSES)}, got {self.loss!r}.")

    def examples(self) -> "Examples":
        from ddf_jax.data.examples import DepthImages

        return DepthImages(self.scale)

    def model_options(self, info: DataInfo) -> dict[str, Any]:
        return {"scale": self.scale, "in_channels": info.channels}

    def batch_spec(self, info: DataInfo, *, training: bool) -> dict[str, jax.ShapeDtypeStruct]:
        square = (info.image_size, info.image_size)
        height, width = square if training or info.eval_shape is None else info.eval_shape
        low = (*self.low_shape(height, width), 1)
        return {
            "image": jax.ShapeDtypeStruct((height, width, info.channels), jnp.float32),
            "low": jax.ShapeDtypeStruct(low, jnp.float32),
            "depth": jax.ShapeDtypeStruct((height, width, 1), jnp.float32),
            "mask": jax.ShapeDtypeStruct((), jnp.bool),
        }

    def low_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the given depth for an image of this size."""
        return -(-height // self.scale), -(-width // self.scale)

    def check_low(self, shape: tuple[int, ...], height: int, width: int) -> None:
        """Raises `RunError` where a depth map of this shape does not go with an image of this size."""
        expected = self.low_shape(height, width)
        if shape != expected:
            raise RunError(
                f"The image must be {self.scale} times as large as the depth map: for an image of {height}×{width} the "
                f"depth must be {expected[0]}×{expected[1]}, got {shape[0]}×{shape[1]}."
            )

    def step_metrics(self, model: Model, batch: Batch, progress: jax.Array) -> StepMetrics:
        errors, measured = model(batch["image"], batch["low"]) - batch["depth"], _measured(batch)
        rmse = root_mean_square(errors, measured)
        return StepMetrics(
            loss=LOSSES[self.loss](errors, measured, progress),
            metric=rmse * _CENTIMETRES,
            invalid={
                "pixels that are not finite": ~jnp.all(jnp.isfinite(batch["image"])),
                "depth that is not finite or negative": ~jnp.all(jnp.isfinite(batch["depth"]) & (batch["depth"] >= 0)),
            },
        )

    def eval_sums(self, model: Model, batch: Batch) -> DepthSums:
        errors = model(batch["image"], batch["low"]) - batch["depth"]
        measured = _measured(batch)
        rows = jnp.sum(jnp.square(errors), axis=(2, 3), where=measured)  # row by row, so that sums lose no digits
        return DepthSums(
            squares=jnp.sum(jnp.sum(rows, axis=1)),
            pixels=jnp.sum(measured, dtype=jnp.int32),
            examples=jnp.sum(batch["mask"], dtype=jnp.int32),
        )

    def finalize(self, sums: DepthSums) -> Scores:
        squares, pixels, examples = map(float, sums)
        mean = squares / max(pixels, 1.0)
        rmse = math.sqrt(mean) * _CENTIMETRES if math.isfinite(mean) else None
        return {"test_rmse": rmse, "test_pixels": int(pixels), "test_examples": int(examples)}

    def predict(self, model: Model, batch: Batch) -> jax.Array:
        """Depth in the unit of `low`, [B, H, W, 1]."""
        return model(batch["image"], batch["low"])

    def summary_line(self, scores: Mapping[str, Any]) -> str:
        rmse = scores["test_rmse"]
        return (
            f"test RMSE {'not finite' if rmse is None else f'{rmse:.2f} cm'}, {scores['test_pixels']:,} pixels of "
            f"{scores['test_examples']} images"
        )

    def draw(self, batch: Mapping[str, np.ndarray], prediction: np.ndarray, info: DataInfo) -> bytes:
        del info
        shown = {name: np.asarray(values[:_DRAWN]) for name, values in batch.items()}
        return draw_depth(shown, classical_baselines(shown, self.scale) | {"ours": prediction[:_DRAWN]})


def root_mean_square(values: jax.Array, mask: jax.Array) -> jax.Array:
    """`sqrt(mean of values² where mask)`, both of one shape; 0, with a gradient of 0, where the mask is true nowhere.

    Computed in float32. The square of a tenth of a millimetre is added, or the gradient at 0 would be infinite.
    """
    squares = jnp.square(jnp.where(mask, values.astype(jnp.float32), 0.0))  # not finite, it would reach the gradient
    mean = jnp.sum(squares) / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)
    return jnp.sqrt(mean + 1e-8) - 1e-4


def charbonnier(values: jax.Array, mask: jax.Array, *, epsilon: float | jax.Array) -> jax.Array:
    """Mean of `sqrt(values² + epsilon²) - epsilon` where `mask`, both of one shape; 0 where the mask is true nowhere.

    Computed in float32. It grows with the square of values below `epsilon` and as the absolute value beyond it, so no
    few large errors drown the others.
    """
    values = jnp.where(mask, values.astype(jnp.float32), 0.0)  # or what is not finite would reach the gradient
    total = jnp.sum(jnp.sqrt(jnp.square(values) + epsilon**2) - epsilon)
    return total / jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1.0)


# (errors in metres, where they count, share of the training that is over) -> loss. Charbonnier's ε grows from 1 cm to
# 1 m: at first large errors, which are few, do not drown the others; in the end the loss is half the squared error that
# is scored.
LOSSES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "rmse": lambda errors, mask, progress: root_mean_square(errors, mask),
    "charbonnier": lambda errors, mask, progress: charbonnier(errors, mask, epsilon=0.01 ** (1 - progress)),
}


def classical_baselines(batch: Mapping[str, np.ndarray], scale: int) -> dict[str, np.ndarray]:
    """Upsampling without learning, by the method's name."""
    found = _classical_baselines(jnp.asarray(batch["image"]), jnp.asarray(batch["low"]), scale)
    return {name.replace("_", " "): np.asarray(found[name]) for name in ("bicubic", "guided_filter", "joint_bilateral")}


def draw_depth(batch: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]) -> bytes:
    """One row an example: image, input, each prediction with its RMSE, truth, and the last prediction's error. PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    image, low, truth = batch["image"], batch["low"], batch["depth"]
    columns = ["image", "input", *predictions, "truth", f"error of {list(predictions)[-1]}"]
    count, (height, width) = len(image), image.shape[1:3]
    size = (1.45 * len(columns), 1.45 * height / width * count + 0.25)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0))
    FigureCanvasAgg(figure)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for row, axes in enumerate(grid):
        measured = truth[row] > 0
        depths = truth[row][measured] if measured.any() else np.ones(1, np.float32)
        depth_range = {"cmap": "viridis", "vmin": depths.min(), "vmax": depths.max()}
        error = np.where(measured, np.abs(list(predictions.values())[-1][row] - truth[row]), 0)
        panels = [(image[row], {}), (np.ma.masked_equal(low[row], 0), depth_range)]
        panels += [(prediction[row], depth_range) for prediction in predictions.values()]
        panels += [(np.ma.masked_equal(truth[row], 0), depth_range), (error, {"cmap": "magma", "vmin": 0, "vmax": 0.5})]
        for axis, title, (panel, options) in zip(axes, columns, panels, strict=True):
            axis.imshow(panel, interpolation="nearest", aspect="auto", **options)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title, fontsize=7, pad=2)
            if title in predictions:
                errors = (predictions[title][row] - truth[row])[measured]
                rmse = np.sqrt(np.mean(np.square(errors))) if measured.any() else 0
                label = f"{_CENTIMETRES * rmse:.1f} cm"
                axis.text(0.03, 0.04, label, transform=axis.transAxes, fontsize=6, color="white")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


@functools.partial(jax.jit, static_argnums=2)
def _classical_baselines(image: jax.Array, low: jax.Array, scale: int) -> dict[str, jax.Array]:
    return {
        "bicubic": bicubic_upsample(low, height=image.shape[1], width=image.shape[2], scale=scale),
        "guided_filter": guided_upsample(low, image, scale=scale),
        "joint_bilateral": joint_bilateral_upsample(low, image, scale=scale),
    }


def _measured(batch: Batch) -> jax.Array:
    return (batch["depth"] > 0) & batch["mask"][:, None, None, None]
