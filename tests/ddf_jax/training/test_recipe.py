import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.recipe import (
    FREE_FIELDS,
    ModelConfig,
    OptimizerConfig,
    Recipe,
    changed_fields,
    recipe_from_json,
    recipe_to_json,
)
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling

RECIPE = Recipe(
    name="every kind of field",
    model=ModelConfig(
        "resnet18", {"stem": "small", "blocks": (1, 2), "stochastic_depth": 0.1, "width": 8, "flag": True}
    ),
    data=DataConfig(folder=Path("images/birds"), image_size=32, augment="shift"),
    optimizer=OptimizerConfig(learning_rate=1 / 3, end_learning_rate=1e-45, nesterov=True),
    task=Classification(label_smoothing=0.25),
    epochs=3,
    dtype="bfloat16",
    init_from=Path("runs/birds"),
    init_step=7,
    init_in_channels="average",
    freeze=("stem.*", "*norm*"),
)
DETECTOR = Recipe(
    "groups of options", ModelConfig("mask_rcnn_resnet50", {"regions": {"sampler": {"count": 64}, "hidden": 512}})
)
DEPTH = Recipe("depth", task=DepthUpsampling(scale=8, loss="charbonnier"))


@pytest.mark.parametrize("recipe", [RECIPE, DETECTOR, DEPTH, Recipe("defaults")], ids=lambda recipe: recipe.name)
def test_a_recipe_comes_back_exactly(recipe: Recipe):
    text = recipe_to_json(recipe)
    again = recipe_from_json(text)
    assert again == recipe
    assert recipe_to_json(again) == text
    assert isinstance(again.data.folder, Path | None)


def test_numbers_of_numpy_are_written_as_numbers():
    recipe = Recipe("x", ModelConfig(options={"width": np.int64(8)}), batch_size=np.int32(4), epochs=np.float64(0.5))  # pyright: ignore[reportArgumentType]
    assert recipe_from_json(recipe_to_json(recipe)) == Recipe(
        "x", ModelConfig(options={"width": 8}), batch_size=4, epochs=0.5
    )


def test_a_field_that_the_file_lacks_has_its_default():
    assert recipe_from_json('{"name": "x", "epochs": 2.5}') == Recipe("x", epochs=2.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, r"no field `epoch`. The nearest is `epochs`"),
        (
            {"optimizer": {"learning_rat": 3}},
            r"no field `optimizer.learning_rat`. The nearest is `optimizer.learning_rate`",
        ),
        ({"epochs": "three"}, r"field `epochs` must be float, got 'three'"),
        ({"epochs": True}, r"field `epochs` must be float, got True"),
        ({"dtype": "float8"}, r"field `dtype` must be .*bfloat16.*, got 'float8'"),
        ({"model": 7}, r"field `model` must be an object, got 7"),
        ({"data": {"folder": 7}}, r"field `data.folder` must be .*, got 7"),
        ({"model": {"options": {"blocks": [1, "2"]}}}, r"field `model.options.blocks` must be .*, got \[1, '2'\]"),
        ({"epochs": 0}, r"`epochs` must be a positive number, got 0"),
        ({"epochs": math.nan}, r"`epochs` must be a positive number, got nan"),
        (
            {"task": {"kind": "classification", "label_smoothing": 1.0}},
            r"in `task`, `label_smoothing` must be in \[0, 1\)",
        ),
        ({"task": {"kind": "classification", "scale": 4}}, r"no field `task.scale`. The nearest is `task."),
        (
            {"task": {"kind": "depth"}},
            r"field `task.kind` must be one of classification, depth_upsampling, detection, panoptic, got 'depth'",
        ),
        ({"task": {"label_smoothing": 0.1}}, r"field `task.kind` must be one of classification, .*, got None"),
        ({"task": "classification"}, r"field `task` must be an object, got 'classification'"),
        ({"evaluate_every": -1}, r"`evaluate_every` must be at least 0, got -1"),
        ({"keep_checkpoints": 0}, r"`keep_checkpoints` must be at least 1, got 0"),
        ({"data": {"image_size": 0}}, r"in `data`, `image_size` must be at least 1 pixel, got 0"),
        ({"name": None}, r"field `name` must be str, got None"),
        ({"freeze": "stem.*"}, r"field `freeze` must be tuple\[str, ...\], got 'stem.\*'"),
        ({"init_from": "runs/x", "init_head": "new"}, r"field `init_head` must be .*fresh.*, got 'new'"),
        (
            {"task": {"kind": "detection"}, "mesh": {"height": 2}},
            r"`mesh.height` must be 1 for Detection, got 2",
        ),
        ({"init_head": "fresh"}, r"`init_head` needs `init_from`, the run or the file that it applies to"),
        ({"init_step": 0}, r"`init_step` needs `init_from`"),
        (
            {"optimizer": {"backbone_factor": 0.0}},
            r"`backbone_factor` must be a positive number, got 0.0; `freeze`",
        ),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], message: str):
    with pytest.raises(RunError, match=message):
        recipe_from_json(json.dumps({"name": "x"} | change))


def test_patterns_are_a_tuple_and_paths_may_be_strings():
    with pytest.raises(UserError, match=r"`freeze` must be a tuple of patterns, got the string 'stem\.\*'"):
        Recipe("x", freeze="stem.*")  # pyright: ignore[reportArgumentType]
    assert Recipe("x", init_from="runs/x") == Recipe("x", init_from=Path("runs/x"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["", ".", "..", "../../x", "a/b", "/x", "a\\b"])
def test_a_name_is_that_of_one_folder(name: str):
    with pytest.raises(UserError, match="`name` must be the name of a folder, without separators, got "):
        Recipe(name)


def test_fields_of_an_earlier_version_are_refused_with_both_names():
    old = {"name": "x", "data": {"target": "label", "scale": 4}, "label_smoothing": 0.1, "depth_loss": "rmse"}
    with pytest.raises(RunError) as refused:
        recipe_from_json(json.dumps(old))
    for names in (
        "`label_smoothing` is now `task.label_smoothing`",
        "`depth_loss` is now `task.loss`",
        "`data.target` is now `task.kind`",
        "`data.scale` is now `task.scale`",
        "train again",
    ):
        assert names in str(refused.value)
    assert "\n" not in str(refused.value)


def test_another_task_is_another_run():
    changes = changed_fields(DEPTH, dataclasses.replace(DEPTH, task=Classification()))
    assert {
        "task.kind: depth_upsampling -> classification",
        "task.label_smoothing: None -> 0.0",
        "task.loss: charbonnier -> cross_entropy",
        "task.scale: 8 -> None",
    } <= {*changes}
    assert all(change.startswith("task.") for change in changes)


def test_a_recipe_needs_a_name_and_json():
    with pytest.raises(RunError, match="lacks the field `name`"):
        recipe_from_json("{}")
    with pytest.raises(RunError, match="not JSON"):
        recipe_from_json('{"name": "x"')


def test_only_changes_that_alter_the_result_are_reported():
    other = dataclasses.replace(
        RECIPE,
        keep_checkpoints=9,
        data=dataclasses.replace(RECIPE.data, workers=3),
        optimizer=dataclasses.replace(RECIPE.optimizer, momentum=0.8),
        model=ModelConfig("resnet18", {"stem": "small"}),
    )
    assert changed_fields(RECIPE, RECIPE) == []
    assert changed_fields(RECIPE, other) == [
        "model.options.blocks: [1, 2] -> None",
        "model.options.flag: True -> None",
        "model.options.stochastic_depth: 0.1 -> None",
        "model.options.width: 8 -> None",
        "optimizer.momentum: 0.9 -> 0.8",
    ]


def test_every_free_field_exists():
    fields = json.loads(recipe_to_json(RECIPE))
    for name in FREE_FIELDS:
        value = fields
        for part in name.split("."):
            assert part in value, name
            value = value[part]
