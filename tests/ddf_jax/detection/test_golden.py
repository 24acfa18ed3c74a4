"""Every number of the detectors is MMDetection's, in float64."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax import models
from ddf_jax.cli import main
from ddf_jax.verify import verify_reference
from ddf_jax.verify.comparison import compare, format_comparisons
from ddf_jax.verify.detector_quantities import as_batch, evaluation_quantities
from ddf_jax.verify.reference_files import detector_reference
from ddf_jax.verify.reference_inputs import reference_inputs
from ddf_jax.verify.references import load_reference, reference_settings
from tests.golden import detectors


def test_detections_of_faster_rcnn_and_all_they_come_from_are_mmdetections(tmp_path):
    reference = detector_reference(detectors.write("faster_rcnn", tmp_path / "golden"))
    recorded = {name: value for name, value in reference.recorded.items() if name.startswith("eval/")}
    assert {re.sub(r"\d", "", name) for name in recorded} == {
        *("eval/backbone", "eval/neck", "eval/neck_last_but_one", "eval/dense_cls", "eval/dense_reg"),
        *("eval/proposals", "eval/bbox_head_cls", "eval/bbox_head_reg", "eval/boxes", "eval/scores", "eval/labels"),
    }
    with jax.enable_x64(True):
        settings = reference_settings(models.get_config("faster_rcnn_resnet50"), reference.library)
        wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        model = models.abstract("faster_rcnn_resnet50", **wide, **settings)
        load_reference(model, reference, "faster_rcnn_resnet50")
        batch = as_batch(reference_inputs(reference.seed, semantic_classes=80), model)
        comparisons = compare(recorded, evaluation_quantities(model, batch), lambda _: 1e-9)
    assert all(c.passed for c in comparisons), format_comparisons(comparisons, "MMDetection")


@pytest.mark.slow
@pytest.mark.parametrize("family", detectors.FAMILIES)
def test_losses_gradients_and_detections_are_mmdetections(family, tmp_path):
    path = detectors.write(family, tmp_path / "golden")
    comparisons = verify_reference(f"{family}_resnet50", path)
    assert all(c.passed for c in comparisons), format_comparisons(comparisons, family)
    names = " ".join(c.quantity for c in comparisons)
    wanted = ["eval/boxes0", "losses/loss_cls", "total_loss", "grad_norm/backbone.layer2.0.conv1.weight", "n_params"]
    if family not in ("retinanet", "faster_rcnn"):
        wanted += ["eval/masks0_first10_packbits", "eval/mask_areas1", "train/sample3_gt"]
    if family == "htc":
        wanted[1] = "losses/s2.loss_mask"
    if family == "panoptic_fpn":
        wanted += ["eval/panoptic1", "losses/loss_seg"]
    assert all(name in names for name in wanted)


@pytest.mark.slow
def test_a_changed_number_of_the_reference_fails(tmp_path, capsys):
    path = detectors.write("retinanet", tmp_path / "golden")
    with np.load(tmp_path / "golden.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["eval/scores1"][3] *= 1 + 1e-7
    np.savez(tmp_path / "golden.npz", **arrays)
    assert main(["verify", "retinanet_resnet50", "--reference", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"eval/scores1 +\d\.\de-08 +1e-09 +FAILED", lines[1])
    assert lines[-1].endswith(f"1 of {len(arrays) + 202} quantities FAILED")
