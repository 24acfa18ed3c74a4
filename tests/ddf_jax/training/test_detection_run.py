"""Detectors go through the real loop: stopped and resumed, and evaluated by several processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ddf_jax.errors import StoppedError
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.panoptic import Panoptic
from ddf_jax.training.train import train
from tests.ddf_jax.data.small_rooms_panoptic import small_rooms_panoptic
from tests.ddf_jax.training.launch import signal_self
from tests.ddf_jax.training.processes import ROOT, metrics, saved_bits
from tests.ddf_jax.training.test_two_processes import join

SMALL = {
    "backbone_options": {"width": 8, "blocks": (1, 1, 1, 1)},
    "channels": 16,
    "semantic_channels": 32,
    "rpn": {
        "anchors": {"scales": (4.0,)},
        "sampler": {"count": 16},
        "training": {"before_nms": 20, "count": 16},
        "evaluation": {"before_nms": 20, "count": 16},
    },
    "regions": {"sampler": {"count": 8}, "hidden": 16, "mask_depth": 1, "detection": {"score": 0.0, "count": 10}},
}


@pytest.mark.slow
def test_a_stopped_run_ends_in_the_same_bits_and_two_processes_score_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = Recipe(
        "rooms",
        model=ModelConfig("panoptic_fpn_resnet50", SMALL),
        data=small_rooms_panoptic(tmp_path / "data"),
        optimizer=OptimizerConfig(method="adam", learning_rate=0.1, warmup_epochs=0),
        task=Panoptic(canvas=(64, 64), max_objects=16, stuff_area=16),
        epochs=2.4,  # 6 steps of 2 of the 5 rooms
        batch_size=2,
        evaluate_every=0,
        checkpoint_every=0.8,
        log_every=1,
    )
    devices = jax.devices()[:2]
    summary = train(recipe, tmp_path / "unbroken", devices=devices)
    assert summary["test_examples"] == 3
    with monkeypatch.context() as patch:
        signal_self(patch, signal.SIGTERM, "step:3")
        with pytest.raises(StoppedError):
            train(recipe, tmp_path / "resumed", devices=devices)
    assert train(recipe, tmp_path / "resumed", devices=devices)["test_pq"] == summary["test_pq"]
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "unbroken")
    steps = summary["steps"]
    assert saved_bits(tmp_path / "resumed", steps) == saved_bits(tmp_path / "unbroken", steps)

    command = [sys.executable, "-m", "ddf_jax", "evaluate", str(tmp_path / "unbroken"), "--json"]
    environments = [os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | each for each in join()]
    pair = [subprocess.Popen(command, env=each, stdout=subprocess.PIPE, text=True) for each in environments]
    document, _ = (process.communicate(timeout=800)[0] for process in pair)
    scores = json.loads(document)
    assert (scores["processes"], scores["test_examples"]) == (2, 3)
    for name in ("test_pq", "test_box_ap", "test_box_ar100", "test_mask_ar100"):
        assert scores[name] == pytest.approx(summary[name], abs=1e-3), name
