"""Every shipped recipe: described, and made of things that exist."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddf_jax import models
from ddf_jax.checkpoints.backbone import fit_backbone
from ddf_jax.checkpoints.conversion import expected_shapes
from ddf_jax.checkpoints.fitting import EXACT
from ddf_jax.checkpoints.rules import official_tensors, unknown_names
from ddf_jax.checkpoints.tensor_files import write_tensors
from ddf_jax.detection.frozen import FROZEN
from ddf_jax.errors import UserError
from ddf_jax.models import get_config
from ddf_jax.plan import COCO, _data_info
from ddf_jax.recipes import find_recipe, shipped_recipes
from ddf_jax.training.recipe import Recipe, recipe_from_json, recipe_to_json
from ddf_jax.training.schedules import learning_rate_schedule, make_step_plan
from ddf_jax.training.train import train

NAMES = shipped_recipes()
DETECTORS = [name for name in NAMES if name.startswith("coco_")]


def test_there_are_recipes():
    some = {"coco_mask_rcnn_resnet50", "digits", "digits_plain", "imagenet_ddf_resnet50", "joint_depth_4x"}
    assert some <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_its_files_name_and_its_header_states_command_hardware_time_and_expected_score(name):
    module = importlib.import_module(f"ddf_jax.recipes.{name}")
    assert module.recipe.name == name
    facts = dict(re.findall(r"^(\w+): +(.+)$", inspect.getdoc(module) or "", re.MULTILINE))
    assert facts["Command"] == f"ddf train {name}"
    assert {"Hardware", "Time", "Expected"} <= facts.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_survives_json_and_its_model_is_one_for_its_task(name):
    recipe = find_recipe(name)
    assert recipe_from_json(recipe_to_json(recipe)) == recipe
    assert get_config(recipe.model.name, **recipe.model.options).task == recipe.task.model_task


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_trained_on_coco_as_the_papers_state(name, tmp_path, monkeypatch):
    """Learning rates of a batch of 16, steps of 117,266 images."""
    monkeypatch.chdir(tmp_path)
    recipe = find_recipe(name)
    plan = make_step_plan(recipe, _data_info(recipe))
    rate: Any = learning_rate_schedule(recipe.optimizer, plan, recipe.batch_size)
    peak = 0.01 if "retinanet" in name else 0.02
    warmup = 2000 if "rednet" in name else 500
    first, last, total = (117_266 * epoch // 16 for epoch in ((16, 19, 20) if "htc" in name else (8, 11, 12)))
    assert plan.total_steps in (total, total + 1)
    assert plan.warmup_steps == warmup
    for step, share in ((0, 0.001), (warmup / 2, 0.5005), (warmup, 1), (first - 1, 1), (last - 1, 0.1), (total, 0.01)):
        assert float(rate(step)) == pytest.approx(peak * share, rel=1e-3), step
    assert (recipe.batch_size, recipe.optimizer.momentum, recipe.dtype) == (16, 0.9, "float32")
    assert recipe.optimizer.weight_decay == (1e-5 if "binet" in name else 1e-4)
    assert recipe.optimizer.clip_norm == (40.0 if name == "coco_retinanet_rednet50" else 0.0)
    assert (recipe.freeze, recipe.data.folder, recipe.data.augment) == (FROZEN, COCO, "flip")
    assert recipe.model.name.startswith(name.removeprefix("coco_").removesuffix("_ddf_up"))
    sizes = [(480, 640), (1000, 3000), (640, 480), (3000, 1000)]  # MMDetection's, of a scale of 1333×800
    assert [resized(recipe, size) for size in sizes] == [(800, 1067), (444, 1333), (1067, 800), (1333, 444)]


def resized(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that an image of a size has in its batch."""
    task: Any = recipe.task
    resize: Any = next(iter(task.variant(*size).examples().evaluation(recipe.data, SimpleNamespace(channels=3))))
    return resize.size(*size)


def test_a_detector_without_pretrained_weights_or_coco_ends_in_one_line_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = find_recipe("coco_mask_rcnn_resnet50")
    with pytest.raises(UserError, match=r"`freeze` .* needs `init_from` \(`--init-from RUN\|FILE`\), a run or a file"):
        train(recipe, tmp_path / "run")
    write_tensors("resnet50.safetensors", {"fc.bias": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match=r"got coco: no such folder. `--data.folder DIR` names another.$"):
        train(dataclasses.replace(recipe, init_from=Path("resnet50.safetensors")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_the_classifiers_weights_fit_the_backbone(name):
    """As the classifier of that name has them, and where there are official names, also by these."""
    recipe = find_recipe(name)
    detector = models.abstract(recipe.model.name, **recipe.model.options)
    classifier = expected_shapes(models.abstract(detector.config.backbone), "own")
    own: Any = {key: np.broadcast_to(np.float32(0), shape) for key, shape in classifier.items()}
    namings = [own, official_tensors(own)] if not unknown_names(own, "own") else [own]
    assert len(namings) == (1 if "dcdc" in name or "binet" in name else 2)
    for tensors in namings:
        arrays, report = fit_backbone(expected_shapes(detector, "own"), tensors, "file", EXACT)
        assert len(arrays) == len(own) - 2
        assert not any(key.startswith("backbone.") for key in report.initialised)
