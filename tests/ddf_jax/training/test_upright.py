"""A detector that is trained and evaluated on images of both orientations."""

from pathlib import Path

import jax
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.training.evaluate import evaluate
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.run import load_run
from ddf_jax.training.tasks.detection import Detection
from ddf_jax.training.train import train
from tests.ddf_jax.data.coco_files import LYING, UPRIGHT, write_sized
from tests.ddf_jax.training.processes import saved_bits


@pytest.mark.slow
def test_a_detector_learns_lying_and_upright_images_and_is_resumed_among_them(tmp_path: Path):
    """Four steps, every third of upright images; from the second on also as a run of its own."""
    write_sized(tmp_path, "train", [UPRIGHT, LYING, LYING] * 2)
    write_sized(tmp_path, "val", [LYING, UPRIGHT, UPRIGHT])
    small = {"channels": 16, "backbone_options": {"width": 4, "blocks": (1, 1, 1, 1)}}
    recipe = Recipe(
        "upright",
        ModelConfig("retinanet_resnet50", small),
        DataConfig(folder=tmp_path, augment="flip"),
        OptimizerConfig(learning_rate=0.1, warmup_epochs=0),
        Detection(canvas=(64, 96), max_objects=3, upright=True),
        epochs=4 / 3,
        batch_size=2,
        checkpoint_every=2 / 3,
        evaluate_every=0,
    )
    device = jax.devices()[:1]
    summary = train(recipe, tmp_path / "run", devices=device)
    assert (summary["steps"], summary["test_examples"]) == (4, 3)
    whole = saved_bits(tmp_path / "run", 4)
    resumed = train(recipe, tmp_path / "run", devices=device, resume_from_step=2)
    assert saved_bits(tmp_path / "run", 4) == whole
    assert resumed["test_box_ap"] == summary["test_box_ap"]
    assert evaluate(load_run(tmp_path / "run", devices=device))["test_examples"] == 3
