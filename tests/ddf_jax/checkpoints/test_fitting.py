"""What may differ between a file and a model, rule by rule, in both namings."""

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ddf_jax import models
from ddf_jax.checkpoints import CheckpointError, load_checkpoint, write_tensors
from ddf_jax.checkpoints.conversion import expected_shapes, named_arrays
from ddf_jax.checkpoints.fitting import EXACT, FitRules, LoadReport, fit
from ddf_jax.checkpoints.rules import official_tensors
from tests.ddf_jax.models.small import abstract_model, drawn
from tests.ddf_jax.models.small_detectors import small

OPTIONS: dict[str, Any] = {"blocks": (1,), "width": 4, "num_classes": 7}
HEAD = ("head.bias", "head.kernel")


@functools.cache
def shapes(**changes: Any) -> dict[str, tuple[int, ...]]:
    model = abstract_model(models.get_config("ddf_resnet18", **OPTIONS | changes))
    return dict(expected_shapes(model, "own"))


@functools.cache
def own() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes().items()}


def fitted(
    tensors: dict[str, np.ndarray], rules: FitRules = EXACT, **changes: Any
) -> tuple[dict[str, np.ndarray], LoadReport]:
    return fit(shapes(**changes), tensors, "file", rules)


def refusal(tensors: dict[str, np.ndarray], rules: FitRules = EXACT, **changes: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        fitted(tensors, rules, **changes)
    return str(error.value)


def without(prefix: str, naming: str = "own") -> dict[str, np.ndarray]:
    tensors = own() if naming == "own" else official_tensors(own())
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def test_a_file_that_fits_is_loaded_whole_in_either_naming():
    for tensors in (own(), official_tensors(own())):
        arrays, report = fitted(tensors)
        assert report == LoadReport(len(own()))
        assert arrays.keys() == own().keys()
        assert all(np.array_equal(arrays[name], own()[name]) for name in arrays)


@pytest.mark.parametrize("naming", ["own", "official"])
def test_a_fresh_head_is_for_other_classes(naming: str):
    tensors = without("nothing", naming)
    theirs, prefix = (HEAD, "head.") if naming == "own" else (("fc.bias", "fc.weight"), "fc.")
    assert '`head="fresh"` (`--init-head fresh`)' in refusal(tensors, num_classes=3)
    arrays, report = fitted(tensors, FitRules(head="fresh"), num_classes=3)
    assert (report.initialised, sorted(report.unused)) == (HEAD, list(theirs))
    assert report.loaded == len(arrays) == len(own()) - 2
    assert '`head="fresh"`' in refusal(without(prefix, naming))
    assert fitted(without(prefix, naming), FitRules(head="fresh"))[1].unused == ()


@pytest.mark.parametrize("naming", ["own", "official"])
@pytest.mark.parametrize("family", ["retinanet", "faster_rcnn", "mask_rcnn", "htc", "panoptic_fpn"])
def test_a_detectors_head_is_all_that_depends_on_its_classes(family: str, naming: str):
    config = small(family)
    other = {
        name: getattr(config, name) + 2
        for name in ("num_classes", "num_stuff", "num_semantic")
        if hasattr(config, name)
    }
    before, after = (
        dict(expected_shapes(abstract_model(dataclasses.replace(config, **change)), "own")) for change in ({}, other)
    )
    differing = {name for name in before if before[name] != after[name]}
    assert differing
    tensors = {name: np.ones(shape, np.float32) for name, shape in before.items()}
    tensors = tensors if naming == "own" else official_tensors(tensors)
    with pytest.raises(CheckpointError, match=r"`head=\"fresh\"` \(`--init-head fresh`\)"):
        fit(after, tensors, "file", EXACT)
    arrays, report = fit(after, tensors, "file", FitRules(head="fresh"))
    assert set(report.initialised) == differing
    assert set(arrays) == set(before) - differing


def test_missing_and_unexpected_tensors_are_allowed_by_pattern_alone():
    extra = {"gate.kernel": np.ones((2, 2), np.float32)}
    tensors = without("layer1.0.conv2.ddf.channel_branch.1.", "official") | extra
    assert "missing (2)" in refusal(tensors)
    assert "unexpected (1): gate.kernel [2, 2]" in refusal(tensors)
    assert "missing (1)" in refusal(tensors, FitRules(allow_missing=("*.squeeze.bias",), allow_unexpected=("gate.*",)))
    for pattern in ("stages.0.0.conv2.*.squeeze.*", "layer1.0.conv2.ddf.channel_branch.1.*"):  # our names or the file's
        rules = FitRules(allow_missing=(pattern,), allow_unexpected=("gate*",))
        arrays, report = fitted(tensors, rules)
        prefix = "stages.0.0.conv2.spatial.channel_branch."
        assert report.initialised == (f"{prefix}squeeze.bias", f"{prefix}squeeze.kernel")
        assert report.unused == ("gate.kernel",)
        # The layout of its neighbour depends on the missing kernel's size.
        assert np.array_equal(arrays[f"{prefix}excite.kernel"], own()[f"{prefix}excite.kernel"])


def test_a_rule_without_effect_is_an_error():
    for rules, message in (
        (FitRules(allow_missing=("stem.*",)), "`allow_missing` 'stem.*' matches nothing that is missing"),
        (FitRules(allow_unexpected=("x*",)), "`allow_unexpected` 'x*' matches nothing that is unexpected"),
        (FitRules(in_channels="average"), "`in_channels` is 'average', but no first convolution differs"),
    ):
        assert message in refusal(own(), rules)
    with pytest.raises(CheckpointError, match=r"`head` is fresh, but the model has no tensor that dep"):
        fit({"a.kernel": (2,)}, {"a.kernel": np.ones(2)}, "file", FitRules(head="fresh"))


def test_nothing_to_load_is_an_error_whatever_is_allowed():
    tensors = {"encoder.0.weight": np.ones(1, np.float32)}
    anything = FitRules(allow_missing=("*",), allow_unexpected=("*",))
    for rules in (anything, FitRules(strict=False)):
        assert "must have some of the model's tensors, got none; nothing was loaded. It has encoder.0.w" in refusal(
            tensors, rules
        )


@pytest.mark.parametrize("naming", ["own", "official"])
def test_the_first_convolution_is_adapted_to_other_channels(naming: str):
    tensors, kernel = without("nothing", naming), own()["stem.conv.kernel"]
    message = refusal(tensors, in_channels=4)
    assert '"average" or "repeat" as `in_channels` (`--init-in-channels`)' in message
    assert "of another shape (1)" in message
    arrays, report = fitted(tensors, FitRules(in_channels="average"), in_channels=4)
    assert report.adapted == ("stem.conv.kernel",)
    expected = np.repeat(kernel.mean(2, keepdims=True), 4, 2) * (3 / 4)
    np.testing.assert_allclose(arrays["stem.conv.kernel"], expected, rtol=1e-6)
    arrays, _ = fitted(tensors, FitRules(in_channels="repeat"), in_channels=4)
    np.testing.assert_allclose(arrays["stem.conv.kernel"], kernel[:, :, [0, 1, 2, 0]] * (3 / 4), rtol=1e-6)
    assert 'stem.conv.kernel must have 3 or more, got 1: "average"' in refusal(
        own(), FitRules(in_channels="repeat"), in_channels=1
    )
    wider = refusal(tensors, FitRules(in_channels="average"), in_channels=4, width=8)
    assert "no first convolution differs in them alone" in wider


def test_a_model_with_names_that_no_rule_knows_takes_its_own_file_and_an_official_one():
    gate = {"gates.0.weight_of": np.ones(3, np.float32)}
    mine = shapes() | {"gates.0.weight_of": (3,)}
    assert fit(mine, own() | gate, "file", EXACT)[1].loaded == len(mine)
    assert fit({"gates.0.weight_of": (3,)}, gate, "file", EXACT)[1].loaded == 1
    rules = FitRules(allow_missing=("gates.*",))
    assert fit(mine, official_tensors(own()), "file", rules)[1].initialised == ("gates.0.weight_of",)


def test_a_report_is_one_line_with_ten_names_at_most():
    assert LoadReport(60).line() == "60 tensors loaded"
    assert LoadReport(58, HEAD, ("fc.bias",), ("stem.conv.kernel",)).line() == (
        "58 tensors loaded, 2 as initialised (head.bias, head.kernel), 1 of the file not used (fc.bias), "
        "1 with adapted input channels (stem.conv.kernel)"
    )
    many = LoadReport(1, tuple(f"n{i}" for i in range(12)))
    assert many.line().endswith("n9 and 2 more)")


def real_model() -> Any:
    structure, *state = drawn(models.get_config("resnet18", **OPTIONS))
    return nnx.merge(structure, *jax.tree.map(jnp.asarray, state))


def test_create_warns_of_what_it_does_not_load_and_a_model_with_a_fresh_head_is_for_training(tmp_path, caplog):
    theirs, path = named_arrays(real_model()), tmp_path / "a.safetensors"
    write_tensors(path, theirs)
    options = OPTIONS | {"num_classes": 3, "stem": "deep"}
    model = models.create("resnet18", **options, checkpoint=path, head="fresh", strict=False, rngs=nnx.Rngs(5))
    [record] = [record for record in caplog.records if record.name.startswith("ddf_jax")]
    assert record.levelno == logging.WARNING
    assert "as initialised (head.bias, head.kernel, stem.conv1.kernel" in record.message
    assert "of the file not used (head.bias, head.kernel, stem.conv.kernel" in record.message
    arrays, kernel = named_arrays(model), "stages.0.0.conv1.kernel"
    np.testing.assert_array_equal(arrays[kernel], theirs[kernel])
    assert arrays["head.kernel"].shape == (4, 3)
    assert not model.stem.norm1.use_running_average


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path):
    model = real_model()
    before, path = named_arrays(model), tmp_path / "a.safetensors"
    write_tensors(path, {name: tensor + 1 for name, tensor in before.items() if name != "head.bias"})
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load_checkpoint(model, path, allow_missing=("head.kernel",))
    assert all(np.array_equal(before[name], tensor) for name, tensor in named_arrays(model).items())
    report = load_checkpoint(model, path, allow_missing=("head.bias",))
    assert dataclasses.asdict(report) == {
        "loaded": len(before) - 1,
        "initialised": ("head.bias",),
        "unused": (),
        "adapted": (),
    }
