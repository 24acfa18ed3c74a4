"""`ddf plan` compiles a whole training step ahead of time for a GPU target."""

import dataclasses
import json
import subprocess
import sys

import jax
import pytest

from ddf_jax.errors import UserError
from ddf_jax.plan import CATEGORIES, _data_info, plan
from ddf_jax.recipes import find_recipe
from tests.aot import ENVIRONMENT, PLUGIN, needs_plugin, uninstall

PROGRAM = "import sys; from ddf_jax.cli import main; sys.exit(main(sys.argv[1:]))"
WORDS = ("--batch-size", "64", "--data.image-size")
BLOCK = ("--model.options", "blocks=1,", "width=32")
WHOLE = (*WORDS, "32", *BLOCK)
SPATIAL = (*WORDS, "8", "--model.name", "ddf_spatial_resnet50", *BLOCK, "stem=small")


# Kernels: the forward pass, a cotangent of each operand, two of the normalisation. What XLA can fuse it does: the whole
# one had 211 launches and 23.5 MB before layers were written for it.
@needs_plugin
@pytest.mark.parametrize(
    ("words", "kernels", "launches_allowed", "megabytes_allowed"),
    [
        pytest.param(SPATIAL, 5, 155, 15, id="spatial"),
        pytest.param(WHOLE, 6, 195, 20, id="whole", marks=pytest.mark.slow),
    ],
)
def test_a_step_on_eight_gpus_only_sums_gradients_and_runs_the_kernels(
    words, kernels, launches_allowed, megabytes_allowed
):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "plan", "imagenet_ddf_resnet50", "--json", *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    asked = {"recipe": "imagenet_ddf_resnet50", "device": "h200", "devices": 8, "batch_size": 64, "dtype": "bfloat16"}
    assert found.items() >= {**asked, "jax": jax.__version__}.items()
    assert found["collectives"].pop("all_reduce") > 0
    assert set(found["collectives"].values()) == {0}
    assert set(found["bytes_per_device"]) == {"arguments", "outputs", "temporaries"}
    assert min(found["bytes_per_device"].values()) > 0
    assert found["kernels"]["__gpu$xla.gpu.triton"] == kernels
    launches = found["launches"]
    total = launches.pop("total")
    assert set(launches) == set(CATEGORIES)
    for column, value in total.items():
        assert value == pytest.approx(sum(row[column] for row in launches.values()), abs=1)
    assert launches["convolution"]["flops"] > 0.9 * total["flops"] > 0
    assert total["launches"] <= launches_allowed
    assert total["bytes"] <= megabytes_allowed * 1e6


DETECTOR = """
import dataclasses, json, sys
from ddf_jax.plan import plan
from ddf_jax.recipes import find_recipe
recipe = find_recipe(sys.argv[1])
small = {"channels": 32, "backbone_options": {"width": 32, "blocks": (1, 1, 1, 1)}}
model = dataclasses.replace(recipe.model, options={**recipe.model.options, **small})
task = dataclasses.replace(recipe.task, canvas=(128, 160), short_side=None, long_side=None, max_objects=10)
print(json.dumps(plan(dataclasses.replace(recipe, model=model, task=task))))
"""


@needs_plugin
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn_ddf_up",
        "mask_rcnn_resnet50",
        "retinanet_rednet50",
        "htc_dcdc_resnet50",
        "panoptic_fpn_dcdc_resnet50",
    ],
)
def test_a_detectors_step_on_eight_gpus_only_sums(name, tmp_path):
    """Proposals, NMS, RoIAlign and targets stay with their images; COCO is not at hand."""
    command = [sys.executable, "-c", DETECTOR, f"coco_{name}"]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["devices"], found["batch_size"]) == (8, 16)
    assert found["collectives"].pop("all_reduce") > 0
    assert set(found["collectives"].values()) == {0}


def test_without_the_plugin_it_states_what_to_install(monkeypatch):
    uninstall(monkeypatch, *PLUGIN)
    with pytest.raises(NotImplementedError, match=f"pip install jax-cuda13-plugin=={jax.__version__}"):
        plan(find_recipe("imagenet_ddf_resnet50"))


def test_a_device_or_a_number_of_devices_that_does_not_exist_is_refused():
    recipe = find_recipe("imagenet_ddf_resnet50")
    with pytest.raises(ValueError, match=r"`device` must be one of .*'h200'.*got 'v100'"):
        plan(recipe, device="v100")
    with pytest.raises(ValueError, match="`devices` must be at least 1, got 0"):
        plan(recipe, devices=0)


def test_the_twins_differ_in_nothing_but_the_operator():
    ours, plain = find_recipe("imagenet_ddf_resnet50"), find_recipe("imagenet_resnet50")
    assert dataclasses.replace(ours, name=plain.name, model=plain.model) == plain
    assert (ours.model.name, plain.model.name) == ("ddf_resnet50", "resnet50")


@pytest.mark.parametrize("name", ["coco_mask_rcnn_resnet50", "coco_panoptic_fpn_dcdc_resnet50", "imagenet_resnet50"])
def test_the_classes_of_known_data_need_no_data(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = find_recipe(name)
    info = _data_info(recipe)
    known = {"imagenet_resnet50": (1000, 0)}.get(name, (80, 53))
    assert (info.num_classes, len(info.stuff_names)) == known
    assert recipe.task.batch_spec(info, training=True)["image"].shape[-1] == info.channels


def test_cocos_classes_are_read_where_it_is_at_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco").mkdir()
    with pytest.raises(UserError, match=r"`data.folder` must be in COCO's layout, .*got coco: 0 folders"):
        _data_info(find_recipe("coco_mask_rcnn_resnet50"))
