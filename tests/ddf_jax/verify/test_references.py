"""Files of references: what is compared with what, and what is refused in one line."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddf_jax import models
from ddf_jax.checkpoints.conversion import expected_shapes
from ddf_jax.cli import main
from ddf_jax.errors import UserError
from ddf_jax.verify import references, verify_reference
from ddf_jax.verify.neck_quantities import PARTS, abstract_neck
from ddf_jax.verify.references import NECK, ROUNDED

NAME = "retinanet_resnet50"
FOUND = {"eval/scores0": np.linspace(1, 0.1, 5), "losses/total_loss": np.array(0.75)}
TRAINED = {"losses/loss_cls": np.array(0.5), "losses/loss_cls/per_level": np.array([0.2, 0.3])}
TRAINED |= {"train/sample0_pos": np.arange(3), "train/sample0_neg": np.arange(5)}


abstract = functools.cache(models.abstract)


@functools.cache
def shapes_of(name):
    return {key: list(shape) for key, shape in expected_shapes(models.abstract(name), "official").items()}


def document(name=NAME, **changes):
    return {
        "library": "mmdet 3.3.0",
        "seed": 7,
        "scales": [["retina_reg", 0.5], ["retina_reg", 0.5]],
        "state": shapes_of(name),
        "losses": {"loss_cls": 0.5, "loss_cls/per_level": [0.2, 0.3]},
        "total_loss": 0.75,
        "grad_norm": {"backbone.conv1.weight": None},
        "n_params": 37_968_692,
        "samples": [[3, 5]],
    } | changes


def written(path, json_document, **arrays):
    path.with_name(f"{path.name}.json").write_text(json.dumps(json_document))
    np.savez(path.with_name(f"{path.name}.npz"), **arrays)
    return path


@pytest.fixture
def computed(monkeypatch):
    """Fixed quantities instead of a network's; the models and the weights' shapes, seeds and factors."""
    asked = []
    monkeypatch.setattr(models, "abstract", abstract)
    monkeypatch.setattr(references, "reference_weights", lambda *weights: weights)
    monkeypatch.setattr(references, "load_tensors", lambda model, weights, source: asked.append((model, weights)))
    monkeypatch.setattr(references, "evaluation_quantities", lambda model, batch: dict(FOUND))
    monkeypatch.setattr(references, "training_quantities", lambda model, batch: dict(TRAINED))
    return asked


@pytest.mark.parametrize("suffix", ["", ".json", ".npz"])
def test_every_quantity_of_both_files_is_compared(computed, tmp_path, suffix):
    path = written(tmp_path / "v3.1", document(), **{"eval/scores0": FOUND["eval/scores0"]})
    comparisons = verify_reference(NAME, path.with_name(path.name + suffix) if suffix else path)
    assert all(c.passed for c in comparisons)
    assert {c.quantity for c in comparisons} == {
        *("eval/scores0", "losses/loss_cls", "losses/loss_cls/per_level", "total_loss"),
        *("grad_norm/backbone.conv1.weight", "n_params", "samples"),
    }
    [(model, (shapes, seed, scales))] = computed
    assert shapes == {key: tuple(shape) for key, shape in shapes_of(NAME).items()}
    assert (seed, scales) == (7, [("retina_reg", 0.5)] * 2)
    assert model.config.param_dtype == model.config.dtype == jnp.float64
    assert not jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"total_loss": 0.7500001}, "total_loss"),
        ({"losses": {"loss_cls/per_level": [0.2, 0.3000001]}}, "losses/loss_cls/per_level"),
        ({"losses": {"loss_mask": 1.0}}, "losses/loss_mask"),
        ({"grad_norm": {"neck.fpn_convs.0.conv.bias": 1.0}}, "grad_norm/neck.fpn_convs.0.conv.bias"),
        ({"n_params": 37_968_691}, "n_params"),
        ({"samples": [[3, 6]]}, "samples"),
        ({"samples": []}, "samples"),
    ],
)
def test_any_other_number_fails_and_the_command_with_it(computed, tmp_path, capsys, change, failed):
    path = written(tmp_path / "a", document(**change))
    assert main(["verify", NAME, "--reference", str(path), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["quantity"] for row in rows if not row["passed"]] == [failed]
    assert {tuple(row) for row in rows} == {("quantity", "relative_error", "passed", "tolerance")}


def test_a_table_names_what_fails(computed, tmp_path, capsys):
    path = written(tmp_path / "a", document(total_loss=1.0))
    assert main(["verify", NAME, "--reference", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("total_loss")
    assert lines[-1] == f"{path}: 1 of 6 quantities FAILED"


def test_only_what_is_rounded_may_differ_by_more():
    rounded = {
        *("total_loss", "losses/loss_rpn_cls", "losses/loss_rpn_cls/per_level", "losses/s2.loss_mask"),
        *("losses/loss_mask", "grad_norm/backbone.layer2.0.conv1.weight", "grad_norm/rpn_head.rpn_cls.weight"),
        *("grad_norm/roi_head.mask_head.0.convs.0.conv.bias", "grad_norm/roi_head.semantic_head.convs.0.conv.bias"),
    }
    exact = {
        *("eval/scores0", "losses/loss_rpn_bbox", "losses/loss_cls", "losses/s0.loss_cls", "losses/acc", "n_params"),
        *("grad_norm/rpn_head.rpn_reg.weight", "grad_norm/roi_head.bbox_head.0.fc_cls.bias"),
        *("grad_norm/roi_head.semantic_head.conv_logits.bias", "grad_norm/semantic_head.conv_logits.bias"),
    }
    assert {name for name in rounded | exact if references._two_stage_tolerance(name) == ROUNDED} == rounded


def test_masks_of_a_cascade_are_those_of_the_librarys_version():
    config = models.get_config("htc_resnet50")
    chosen = {version: references.reference_settings(config, f"mmdet {version}") for version in ("2.28.2", "3.3.0")}
    assert {version: options["cascade"].masks for version, options in chosen.items()} == {
        "2.28.2": "mean",
        "3.3.0": "last",
    }
    assert chosen["3.3.0"]["cascade"].sampler.count == 128
    assert (chosen["3.3.0"]["rpn"].training.count, chosen["3.3.0"]["rpn"].evaluation.count) == (300, 200)


def refused(name, path):
    with pytest.raises(UserError) as error:
        verify_reference(name, path)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"library": "torchvision 0.29.1"}, r"MMDetection 2 or 3 .*, got 'torchvision 0\.29\.1'"),
        ({"library": "mmdet 4.0.0"}, "got 'mmdet 4.0.0'"),
        ({"seed": "7"}, "`seed` of a reference must be an integer ≥ 0, got '7'"),
        ({"scales": [["(", 1.0]]}, "`scales` of a reference must be pairs"),
        ({"scales": 3}, "`scales` of a reference must be pairs"),
        ({"state": {"fc.weight": "big"}}, "`state` of a reference must have a list of sizes for fc.weight"),
        (
            {"state": {"fc.weight": [10**12, 10**12]}},
            rf"not one of {NAME}: it lacks backbone\.bn1\.bias, .* and \d+ more",
        ),
        ({"losses": [1.0]}, "`losses` of a reference must be an object"),
        ({"losses": {"loss_cls": "small"}}, "`loss_cls` of a reference must be a number"),
        ({"samples": [[1, 2], [3]]}, "`samples` of a reference must be"),
    ],
)
def test_a_reference_that_is_none_of_the_detector_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        verify_reference(NAME, written(tmp_path / "a", document(**change)))


def test_shapes_of_another_network_are_refused_with_their_names(tmp_path):
    path = written(tmp_path / "a", document("faster_rcnn_resnet50"))
    assert refused(NAME, path).startswith(
        f"The reference is not one of {NAME}: it lacks bbox_head.cls_convs.0.conv.bias"
    )
    shapes = document()["state"] | {"bbox_head.retina_cls.bias": [9]}
    message = refused(NAME, written(tmp_path / "a", document(state=shapes)))
    assert message.endswith("it has bbox_head.retina_cls.bias [9] instead of [720].")


def test_files_that_are_none_are_refused(tmp_path):
    assert f"there is no {tmp_path}/a.json and no {tmp_path}/a.npz." in refused(NAME, tmp_path / "a")
    path = written(tmp_path / "a", [1])
    assert "must be a JSON object, got a list" in refused(NAME, path)
    written(path, {"state": {}})
    assert "lacks library, seed, scales, losses, total_loss, grad_norm" in refused(NAME, path)
    assert "no reference of a pyramid: its JSON lacks faster/seed" in refused(NECK, path)
    written(path, document(), **{"eval/secret": np.zeros(3)})
    assert "quantities that no detector has: eval/secret" in refused(NAME, path)
    written(path, document(), **{"eval/scores0": np.array([{"a": 1}])})
    assert "not a file of arrays" in refused(NAME, path)
    written(path, document(), **{"eval/scores0": np.array(["a"])})
    assert "must have arrays of numbers, got others: eval/scores0" in refused(NAME, path)
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    assert "not a file of arrays" in refused(NAME, path)
    (tmp_path / "a.json").write_text("{")
    assert "is not JSON" in refused(NAME, path)


def test_arrays_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("ddf_jax.verify.reference_files.LARGEST", 1000)
    path = written(tmp_path / "a", document(), **{"eval/scores0": np.zeros(1000)})
    assert "must have at most 1000 bytes" in refused(NAME, path)


def test_arrays_of_no_part_of_the_pyramid_are_refused(tmp_path):
    of_parts = {}
    for part in PARTS:
        with jax.enable_x64(True):
            shapes = expected_shapes(abstract_neck(part), "official")
        of_parts |= {f"{part}/seed": 1, f"{part}/state": {key: list(shape) for key, shape in shapes.items()}}
        of_parts |= {f"{part}/{mode}": {"loss": 1.0, "grad_norm": {}} for mode in ("eval", "train")}
    assert "arrays of no part of a pyramid" in refused(NECK, written(tmp_path / "a", of_parts, y0=np.zeros(2)))


def test_other_names_and_options_that_do_not_apply_are_refused_in_one_line(tmp_path, capsys):
    assert "A reference is of a detector or of fpn_involution, got 'resnet50'" in refused("resnet50", tmp_path)
    assert main(["verify", NAME, "--reference", "a", "--dtype", "float32", "--batch", "3"]) == 2
    assert "leave out --dtype, --batch" in capsys.readouterr().err
    assert main(["verify", NAME, "--reference", str(tmp_path / "a"), "--json"]) == 2
    result = capsys.readouterr()
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
