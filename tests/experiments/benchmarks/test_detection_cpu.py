"""The detector's benchmark: rows of every implementation that there is, and inputs as a trained network makes them."""

import sys
import textwrap
from typing import Any

import numpy as np
import pytest

from experiments.benchmarks import detection_cpu
from experiments.benchmarks.detection_inputs import CLASSES, OBJECTS, make_inputs, part_shapes, weight_shapes

PARTS = ["nms_1000", "training_step"]
PROGRAM = """
    import os, sys
    import numpy as np
    from experiments.benchmarks.turns import Part, serve

    inputs, weights = (np.load(os.path.join(sys.argv[-1], name + ".npz")) for name in ("inputs", "weights"))
    assert "nms1000_boxes" in inputs and list(weights) == ["w"]
    part = lambda: Part(lambda: None, lambda: 5, {compiled})
    serve({{"nms_1000": part, "training_step": part}}, "{name} 1.0")
"""


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    return make_inputs((64, 96), (64, 64), 60)


def command(name: str, compiled: float) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PROGRAM).format(name=name, compiled=compiled)]


def rows_of(inputs: Any, *names: str, parts: Any = None) -> list[dict[str, Any]]:
    commands = {name: command(name, 2.0 if name == "jax" else 0) for name in names}
    return detection_cpu.measure(commands, inputs, {"w": np.ones(2)}, 2, parts)


def test_each_implementation_has_a_row_for_each_part(inputs):
    rows = rows_of(inputs, "jax", "torch_port")
    keys = [(row["implementation"], row["part"]) for row in rows]
    assert keys == [(name, part) for part in PARTS for name in ("jax", "torch_port")]
    assert len({tuple(row) for row in rows}) == 1, "rows of one table have the same columns"
    for row in rows:
        assert row["median_ms"] >= 0
        assert row["quartile_distance_ms"] >= 0
        assert (row["peak_bytes"], row["n"]) == (5, 2)
        assert row["versions"] == f"{row['implementation']} 1.0"
        assert (row["process_bytes"] is not None) == (row["part"] == "training_step")
        assert row["compile_s"] == (2.0 if row["implementation"] == "jax" else None)
    assert {row["shape"] for row in rows} == {"1000x4", "2x64x64x3"}
    table = [line.split() for line in detection_cpu.to_table(rows).splitlines()]
    assert table[0] == ["part", "jax", "torch_port"]
    assert [line[0] for line in table[1:]] == PARTS


def test_some_parts_can_be_left_out(inputs):
    rows = rows_of(inputs, "jax", parts=["nms_1000"])
    assert [(row["part"], row["process_bytes"]) for row in rows] == [("nms_1000", None)]


def test_without_its_python_torchvision_does_not_run():
    assert list(detection_cpu.peer_commands(None)) == ["jax", "torch_port"]
    commands = detection_cpu.peer_commands("/other/python")
    assert commands["torchvision"] == ["/other/python", "-m", "experiments.benchmarks.detection_torchvision"]


def test_boxes_crowd_around_objects_inside_the_image(inputs):
    assert len(part_shapes(inputs)) == 14
    for name in ("proposals", "found", "nms1000_boxes", "nms4000_boxes", "train_boxes"):
        boxes = inputs[name].reshape(-1, 4)
        height, width = inputs["train_images" if name == "train_boxes" else "image"].shape[1:3]
        assert (boxes >= 0).all()
        assert (boxes <= np.array([width, height, width, height]) + 1e-3).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert inputs["train_labels"].shape == (2, OBJECTS)
    best = np.exp(inputs["class_logits"] - inputs["class_logits"].max(1, keepdims=True))
    scores = (best / best.sum(1, keepdims=True))[:, :CLASSES]
    assert 5 < (scores > 0.05).sum() < 3 * len(scores), "as many candidates as a trained network has"
    assert inputs["logits0"].max() > 0 > np.median(inputs["logits0"]), "few anchors have an object"


def test_weights_have_the_names_and_shapes_of_mmdetection():
    shapes = weight_shapes()
    assert len(shapes) == 348
    assert shapes["roi_head.bbox_head.shared_fcs.0.weight"] == (1024, 256 * 49)
    assert shapes["neck.fpn_convs.3.conv.weight"] == (256, 256, 3, 3)
