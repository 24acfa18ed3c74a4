"""A run whose detector is a rule: the object is the bright rectangle of an image."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ddf_jax.data.info import DataInfo
from ddf_jax.data.transforms import Normalize
from ddf_jax.detection.annotations import Detections
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.recipe import Recipe
from ddf_jax.training.run import Run
from ddf_jax.training.step import ModelState
from ddf_jax.training.tasks import Task
from ddf_jax.training.tasks.detection import Detection
from ddf_jax.training.tasks.panoptic import Panoptic

CANVAS = (64, 96)
INFO = DataInfo(2, ("ball", "pole"), 3, train_size=4, eval_size=1, image_size=64, stuff_names=("floor", "wall"))


class RectangleRun(Run):
    """Finds a pole of score 0.9 at the bright rectangle, and below it in the list the same as a ball of score 0.3."""

    @property
    def predict_step(self) -> Callable[[Any, Any], Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        def find(variables: Any, batch: Any) -> Any:
            batches: list[Any] = variables["batches"]
            batches.append(jax.tree.map(np.asarray, dict(batch)))
            return find_rectangles(batches[-1], masks=bool(getattr(self.recipe.task, "masks", False)))

        return find

    @property
    def batches(self) -> list[dict[str, np.ndarray]]:
        """What the detector has seen."""
        return self.state.variables["batches"]  # pyright: ignore[reportCallIssue, reportArgumentType, reportIndexIssue]


def rectangle_run(task: Task | None = None, devices: int = 1) -> RectangleRun:
    """The run, of detection with masks by default."""
    recipe = Recipe("rectangles", task=task or Detection(canvas=CANVAS, masks=True))
    make: Any = ModelState
    return RectangleRun(recipe, INFO, 3, make(None, {"batches": []}), data_mesh(jax.devices()[:devices]))


def panoptic(**options: Any) -> Panoptic:
    return Panoptic(canvas=CANVAS, stuff_area=20, **options)


def find_rectangles(batch: dict[str, np.ndarray], *, masks: bool) -> Any:
    count = len(batch["image"])
    boxes = np.zeros((count, 3, 4), np.float32)
    for row, (image, (height, width)) in enumerate(zip(batch["image"], batch["size"], strict=True)):
        bright = Normalize(3).undo(image[:height, :width]).min(-1) > 0.5
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        boxes[row, :2] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    scores = np.tile(np.array([0.9, 0.3, 0.0], np.float32), (count, 1))
    labels = np.tile(np.array([1, 0, 0], np.int32), (count, 1))
    height, width = batch["image"].shape[1:3]
    semantic = np.zeros((count, height // 4, width // 4, 3), np.float32)
    semantic[..., 1] = 1  # the wall
    drawn = np.ones((count, 3, 28, 28), np.float32) if masks else None
    make: Any = Detections  # of numpy's arrays, as on the host
    return make(boxes, scores, labels, np.full(count, 2), drawn, semantic)


def rectangle_image(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A dark image with a white rectangle."""
    x1, y1, x2, y2 = box
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    return image
