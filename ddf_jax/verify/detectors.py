"""Comparison of one detector with its PyTorch port: with random weights or with those of a checkpoint."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddf_jax import models
from ddf_jax.checkpoints.conversion import load_tensors
from ddf_jax.errors import UserError
from ddf_jax.verify.comparison import TOLERANCE, compare
from ddf_jax.verify.detector_quantities import as_batch, evaluation_quantities, training_quantities
from ddf_jax.verify.networks import Weights, choose_implementation, read_weights
from ddf_jax.verify.reference import reference_weights
from ddf_jax.verify.reference_inputs import ReferenceInputs, reference_inputs
from ddf_jax.verify.references import reference_settings
from ddf_jax.verify.report import Report
from ddf_jax.verify.settings import Settings

# With these factors random weights find objects, and boxes are near their anchors.
SCALES = (("rpn_reg", 0.15), ("fc_reg", 0.3), ("retina_reg", 0.5), ("fc_cls.weight", 2.0))
# How many classes a head has, by the name of its bias and the outputs of a class and of all.
_CLASSES = {
    "num_classes": ((r"roi_head\.bbox_head(\.0)?\.fc_cls\.bias", 1, 1), (r"bbox_head\.retina_cls\.bias", 9, 0)),
    "num_stuff": ((r"semantic_head\.conv_logits\.bias", 1, 1),),
    "num_semantic": ((r"roi_head\.semantic_head\.conv_logits\.bias", 1, 0),),
}
# The kinds of a report, by the first part of a quantity's name.
_KINDS = {"eval": "evaluation", "train": "training", "losses": "loss", "grad_norm": "gradient"}


def compare_detector(name: str, checkpoint: Path | None, settings: Settings) -> Report:
    """Compares a registered detector with its port on the references' two images, in float64.

    Features, raw outputs of all heads, proposals, samples, detections, masks, losses, and the norms of gradients; the
    numbers of proposals and samples are those of the references.

    Args:
        name: of the detector.
        checkpoint: weights of both instead of random ones.
        settings: of the comparison; images have one size.

    Raises:
        UserError: another dtype than float64 is asked for, or the checkpoint does not fit.
    """
    from ddf_jax.verify.torch_trace import trace_detector

    if settings.dtype != "float64":  # in float32 the order of near-equal scores may differ, and with it every choice
        raise UserError(f"Detectors are compared in float64, got dtype={settings.dtype!r}.")
    weights = None if checkpoint is None else read_weights(checkpoint)
    options = {**_classes(weights or {}), **settings.options}
    with jax.enable_x64(True):
        model = _create(name, options)
        classes = {key: getattr(model.config, key) for key in _CLASSES if hasattr(model.config, key)}
        port = _create_port(name, {**options, **classes})
        if weights is None:
            shapes = {key: tuple(value.shape) for key, value in port.state_dict().items()}
            weights = reference_weights(shapes, settings.seed, SCALES)
        load_tensors(model, weights, str(checkpoint or "the random weights"))
        if settings.implementation is not None:
            choose_implementation(model, settings.implementation)
        inputs = _inputs(settings.seed, classes)
        batch = as_batch(inputs, model)
        found = evaluation_quantities(model, batch) | training_quantities(model, batch)
    comparisons = compare(trace_detector(port, weights, inputs), found, lambda _: TOLERANCE)
    errors: dict[str, dict[str, float]] = {}
    for comparison in comparisons:
        part, _, quantity = comparison.quantity.partition("/")
        errors.setdefault(_KINDS[part], {})[quantity] = comparison.relative_error
    _, height, width, _ = inputs.images.shape
    return Report(name, settings.dtype, (height, width), TOLERANCE, errors)


def _create(name: str, options: Mapping[str, Any]) -> Any:
    """The detector without arrays. Options that it has not are those of its backbone."""
    config = models.get_config(name)
    fields = {field.name for field in dataclasses.fields(config)}
    own = {key: value for key, value in options.items() if key in fields}
    of_backbone = {key: value for key, value in options.items() if key not in own and key not in _CLASSES}
    wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    settings = reference_settings(config, "mmdet 2")
    return models.abstract(name, **wide, **settings, **own, backbone_options=of_backbone)


def _create_port(name: str, options: Mapping[str, Any]) -> Any:
    from ddf_jax.torch_port import detection
    from ddf_jax.torch_port.detection.names import SETTINGS

    counts = {"train_proposals": 300, "test_proposals": 200, "box_samples": 128, "order": detection.golden_order}
    settings = dataclasses.replace(SETTINGS[name.rpartition("_")[0]], **counts)
    return detection.create(name, settings=settings, **options).double()


def _classes(weights: Weights) -> dict[str, int]:
    """The numbers of classes that a checkpoint's heads have."""
    found: dict[str, int] = {}
    for key, heads in _CLASSES.items():
        for pattern, anchors, others in heads:
            for name in (name for name in weights if re.fullmatch(pattern, name)):
                found[key] = weights[name].size // anchors - others
    return found


def _inputs(seed: int, classes: Mapping[str, int]) -> ReferenceInputs:
    things = classes["num_classes"]
    semantic = classes.get("num_semantic", things + classes.get("num_stuff", 0))
    inputs = reference_inputs(seed, semantic_classes=semantic)
    truths = tuple(truth._replace(labels=truth.labels % things) for truth in inputs.truths)
    return inputs._replace(truths=truths)
