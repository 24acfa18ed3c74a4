"""Inputs of the parts of a detector, the same for every implementation: objects, and boxes and scores around them.

A network of random weights proposes boxes that hardly overlap and finds either nothing or everything. Therefore each
part gets arrays as a trained network makes them: scores rise and boxes crowd where an object is.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddf_jax.checkpoints.rules import official_tensors
from ddf_jax.detection.boxes import BoxCoder, iou
from ddf_jax.models import abstract
from ddf_jax.models.detectors import FAMILIES, RCNNConfig
from ddf_jax.verify.detectors import SCALES
from ddf_jax.verify.reference import reference_weights

Arrays = dict[str, np.ndarray]

MODEL = "faster_rcnn_resnet50"
CLASSES = 80
CHANNELS = 256
STRIDES = (4, 8, 16, 32, 64)
BOX_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)
NMS_COUNTS = (1000, 4000)
MASKS = 100
OBJECTS = 20


def make_inputs(size: tuple[int, int], training_size: tuple[int, int], proposals: int) -> Arrays:
    """The arrays by name, in float32, channels last.

    `image` [1, H, W, 3] · `level{n}` [1, H/s, W/s, C] of strides 4 to 64 · `logits{n}`, `deltas{n}` of the RPN on each
    [1, H/s, W/s, 3] and [1, H/s, W/s, 12] · `proposals` [P, 4] · `features` [P, 7, 7, C] · `class_logits` [P, 81],
    background last, and `class_deltas` [P, 80, 4] of the box head · `found` boxes [100, 4] and their `masks`
    [100, 28, 28] · `nms{N}_boxes`, `_scores`, `_groups` of five groups · `train_images` [2, h, w, 3], `train_boxes`
    [2, M, 4], `train_labels` [2, M].

    Args:
        size: (H, W) of the image.
        training_size: (h, w) of the two images of a training step.
        proposals: P.
    """
    rng = np.random.Generator(np.random.Philox(0))
    objects, labels = _objects(rng, size), rng.integers(0, CLASSES, OBJECTS)
    arrays: dict[str, np.ndarray] = {"image": rng.standard_normal((1, *size, 3))}
    grid = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    config = FAMILIES["faster_rcnn"]
    assert isinstance(config, RCNNConfig)
    anchors = np.concatenate([np.asarray(level) for level in config.rpn.anchors.levels(grid, jnp.float32)])
    nearest, overlap = _nearest(anchors, objects)
    logits = 12 * overlap - 6 + rng.standard_normal(overlap.shape)
    deltas = _deltas(rng, anchors, nearest, overlap, (1.0, 1.0, 1.0, 1.0), 0.15)
    start = 0
    for number, shape in enumerate(grid):
        level = slice(start, start := start + config.rpn.anchors.per_pixel * math.prod(shape))
        arrays[f"level{number}"] = rng.standard_normal((1, *shape, CHANNELS))
        arrays[f"logits{number}"] = logits[level].reshape(1, *shape, -1)
        arrays[f"deltas{number}"] = deltas[level].reshape(1, *shape, -1)
    arrays["proposals"] = boxes = _crowd(rng, objects, proposals, size)
    arrays["features"] = np.maximum(rng.standard_normal((proposals, 7, 7, CHANNELS)), 0)
    arrays |= _head_outputs(rng, boxes, objects, labels)
    arrays["found"] = _crowd(rng, objects, MASKS, size)
    arrays["masks"] = _masks(rng)
    for count in NMS_COUNTS:
        arrays[f"nms{count}_boxes"] = _crowd(rng, objects, count, size)
        arrays[f"nms{count}_scores"] = rng.random(count)
        arrays[f"nms{count}_groups"] = rng.integers(0, 5, count)
    arrays["train_images"] = rng.standard_normal((2, *training_size, 3))
    arrays["train_boxes"] = np.stack([_objects(rng, training_size) for _ in range(2)])
    arrays["train_labels"] = rng.integers(0, CLASSES, (2, OBJECTS))
    return {name: array.astype(np.int32 if array.dtype.kind == "i" else np.float32) for name, array in arrays.items()}


def make_weights() -> Arrays:
    """Random tensors of the detector by MMDetection's names."""
    tensors = reference_weights(weight_shapes(), 0, SCALES)
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """Of the detector's tensors by MMDetection's names."""
    state = nnx.state(abstract(MODEL), nnx.Any(nnx.Param, nnx.BatchStat))
    own = {
        ".".join(map(str, path)): np.broadcast_to(np.float32(0), value.shape)
        for path, value in nnx.to_flat_state(state)
    }
    return {name: tensor.shape for name, tensor in official_tensors(own).items()}


def part_shapes(inputs: Arrays) -> dict[str, str]:
    """What a part is given, or of the heads of boxes and masks what it gives, by the part's name."""
    proposals, image = len(inputs["proposals"]), _name(inputs["image"])
    anchors = sum(inputs[f"logits{number}"].size for number in range(len(STRIDES)))
    return {
        **dict.fromkeys(("backbone", "pyramid", "rpn_head", "rest", "forward"), image),
        "proposals": f"{anchors}x4",
        **{f"nms_{count}": f"{count}x4" for count in NMS_COUNTS},
        **dict.fromkeys(("roi_align_box", "box_head"), _name(inputs["features"])),
        "detections": f"{proposals}x{CLASSES}x4",
        "roi_align_mask": f"{MASKS}x14x14x{CHANNELS}",
        "paste_masks": "x".join(map(str, (MASKS, *inputs["image"].shape[1:3]))),
        "training_step": _name(inputs["train_images"]),
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """To be read by `numpy.load`."""
    np.savez(path, **dict(arrays))  # pyright: ignore[reportArgumentType]  # its other argument is a flag


def _name(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def _objects(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """[OBJECTS, 4] of sides from 1/32 to 1/2 of the image's shorter one."""
    side = np.exp(rng.uniform(np.log(min(size) / 32), np.log(min(size) / 2), (OBJECTS, 1)))
    sides = side * np.exp(rng.uniform(-0.5, 0.5, (OBJECTS, 1)) * np.array([[1, -1]]))
    corner = rng.uniform(0, 1, (OBJECTS, 2)) * (np.array(size[::-1]) - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def _crowd(rng: np.random.Generator, objects: np.ndarray, count: int, size: tuple[int, int]) -> np.ndarray:
    """Half of the boxes around objects, half anywhere: [count, 4] within the image, at least a pixel wide and high."""
    limits = np.array(size[::-1])
    around = objects[rng.integers(0, len(objects), count)]
    sides = around[:, 2:] - around[:, :2]
    centre = (around[:, :2] + around[:, 2:]) / 2 + 0.15 * sides * rng.standard_normal((count, 2))
    sides = sides * np.exp(0.15 * rng.standard_normal((count, 2)))
    elsewhere = rng.random((count, 1)) < 0.5
    centre = np.where(elsewhere, rng.uniform(0, 1, (count, 2)) * limits, centre)
    others = np.exp(rng.uniform(np.log(min(size) / 50), np.log(min(size) / 2), (count, 1)))
    sides = np.where(elsewhere, others * np.exp(0.35 * rng.standard_normal((count, 1)) * np.array([[1, -1]])), sides)
    low = np.clip(centre - sides / 2, 0, limits - 1)
    return np.concatenate([low, np.clip(centre + sides / 2, low + 1, limits)], axis=1)


def _nearest(boxes: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The object [N, 4] with the largest IoU with each box, and that IoU [N]."""
    overlaps = np.asarray(iou(jnp.asarray(boxes, jnp.float32), jnp.asarray(objects, jnp.float32)))
    return objects[overlaps.argmax(1)], overlaps.max(1)


def _deltas(
    rng: np.random.Generator,
    boxes: np.ndarray,
    objects: np.ndarray,
    overlap: np.ndarray,
    deviations: tuple[float, float, float, float],
    noise: float,
) -> np.ndarray:
    """Encoded boxes [N, 4] near the objects where they overlap, near the boxes elsewhere."""
    encoded = BoxCoder(deviations).encode(jnp.asarray(boxes, jnp.float32), jnp.asarray(objects, jnp.float32))
    spread = noise * rng.standard_normal(boxes.shape) / np.array(deviations)
    return np.where(overlap[:, None] > 0.3, np.asarray(encoded), 0) + spread


def _head_outputs(rng: np.random.Generator, boxes: np.ndarray, objects: np.ndarray, labels: np.ndarray) -> Arrays:
    nearest, overlap = _nearest(boxes, objects)
    label = labels[(nearest[:, None] == objects[None]).all(2).argmax(1)]
    logits = rng.standard_normal((len(boxes), CLASSES + 1))
    logits[:, CLASSES] += 6
    logits[np.arange(len(boxes)), label] += 10 * overlap
    deltas = rng.standard_normal((len(boxes), CLASSES, 4))
    deltas[np.arange(len(boxes)), label] = _deltas(rng, boxes, nearest, overlap, BOX_DEVIATIONS, 0.05)
    return {"class_logits": logits, "class_deltas": deltas}


def _masks(rng: np.random.Generator) -> np.ndarray:
    """Probabilities of soft ellipses [MASKS, 28, 28]."""
    place = (np.arange(28) + 0.5) / 14 - 1
    radii = rng.uniform(0.6, 1.0, (MASKS, 2))
    distance = (place[None, :, None] / radii[:, :1, None]) ** 2 + (place[None, None] / radii[:, 1:, None]) ** 2
    return 1 / (1 + np.exp(8 * (distance - 1)))
