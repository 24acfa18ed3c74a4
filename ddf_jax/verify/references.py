"""`verify_reference`: compares a detector, or the pyramid with involutions, with a reference's files."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddf_jax import models
from ddf_jax.checkpoints.conversion import expected_shapes, load_tensors
from ddf_jax.errors import UserError
from ddf_jax.verify.comparison import TOLERANCE, Comparison, compare
from ddf_jax.verify.detector_quantities import as_batch, evaluation_quantities, training_quantities
from ddf_jax.verify.neck_quantities import MODES, PARTS, abstract_neck, neck_quantities
from ddf_jax.verify.reference import reference_weights
from ddf_jax.verify.reference_files import Reference, Shapes, detector_reference, neck_references
from ddf_jax.verify.reference_inputs import reference_inputs

NECK = "fpn_involution"
"""The name of the feature pyramid with involutions (RedNet's neck), which is compared alone."""

ROUNDED = 1e-6
"""The tolerance of what MMDetection's two-stage detectors round to float32."""
_ROUNDED_LOSSES = re.compile(r"total_loss|losses/(loss_rpn_cls|(s\d\.)?loss_mask)(/per_level)?")
# Of these parameters no gradient comes from a rounded loss: offsets of anchors, box heads, semantic logits.
_EXACT_GRADIENTS = re.compile(
    r"grad_norm/(rpn_head\.rpn_reg|roi_head\.bbox_head|roi_head\.semantic_head\.conv_logits|semantic_head)\."
)

_QUANTITIES = re.compile(
    r"eval/(backbone\d|neck\d|neck_last_but_one|dense_(cls|reg)\d|bbox_head\d_(cls|reg)|mask_head\d_logits|semantic"
    r"|(proposals|boxes|scores|labels|mask_areas|panoptic)\d|masks\d(_first\d+_packbits)?)"
    r"|train/(proposals\d|sample\d+_(pos|neg|gt))|(losses|grad_norm)/.+|total_loss|n_params|samples"
)


def verify_reference(name: str, path: Path) -> list[Comparison]:
    """Computes in float64 what a reference has recorded, on its weights and inputs, and compares every quantity.

    Weights and inputs follow from the reference's seed and the names of its tensors; no torch is needed. It takes some
    minutes. `compare` states how errors are measured. The tolerance is 1e-9, and 1e-6 for what MMDetection's two-stage
    detectors round to float32: `loss_rpn_cls`, `loss_mask`, their total, and the norms of gradients that flow from the
    two.

    Args:
        name: of a registered detector, or `fpn_involution`.
        path: of the reference's two files, without suffix or with that of either.

    Raises:
        UserError: no detector has that name; the files are missing or damaged; they are of another library, of another
            network or have quantities that no detector has.
    """
    detectors = models.list_models(task="detection")
    if name != NECK and name not in detectors:
        raise UserError(f"A reference is of a detector or of {NECK}, got {name!r}. Detectors: {', '.join(detectors)}.")
    with jax.enable_x64(True):
        return _verify_neck(path) if name == NECK else _verify_detector(name, path)


def _verify_neck(path: Path) -> list[Comparison]:
    comparisons = []
    references = neck_references(path, tuple(PARTS), MODES)
    for part, reference in _shown(references.items(), NECK, total=len(references)):
        fpn = abstract_neck(part)
        load_reference(fpn, reference, f"{NECK}, part {part}")
        comparisons += compare(reference.recorded, neck_quantities(fpn, part, reference.seed), lambda _: TOLERANCE)
    return comparisons


def _verify_detector(name: str, path: Path) -> list[Comparison]:
    reference = detector_reference(path)
    if unknown := [quantity for quantity in reference.recorded if not _QUANTITIES.fullmatch(quantity)]:
        raise UserError(f"{path} has quantities that no detector has: {', '.join(unknown[:5])}.")
    config = models.get_config(name)
    wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    model = models.abstract(name, **wide, **reference_settings(config, reference.library))
    load_reference(model, reference, name)
    classes = getattr(config, "num_semantic", config.num_classes + getattr(config, "num_stuff", 0))
    batch = as_batch(reference_inputs(reference.seed, semantic_classes=classes), model)
    found: dict[str, np.ndarray] = {}
    for quantities in _shown((evaluation_quantities, training_quantities), name, total=2):
        found |= quantities(model, batch)
    found["total_loss"] = found.pop("losses/total_loss")
    found["n_params"] = np.asarray(sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))))
    counts = [(len(found[key]), len(found[key[:-3] + "neg"])) for key in found if re.fullmatch(r"train/.+_pos", key)]
    found["samples"] = np.array(counts, np.int64).reshape(-1, 2)
    two_stage = hasattr(config, "rpn")
    return compare(reference.recorded, found, _two_stage_tolerance if two_stage else lambda _: TOLERANCE)


def reference_settings(config: Any, library: str) -> dict[str, Any]:
    """Options of a detector as in the references: 200 proposals (300 in training), 128 of which count in a loss."""
    match = re.fullmatch(r"mmdet ([23])(\.[0-9.]+)?", library)
    if match is None:
        raise UserError(f"A reference must be recorded with MMDetection 2 or 3 (`mmdet 3.3.0`), got {library!r:.80}.")
    if not hasattr(config, "rpn"):
        return {}
    proposals = {
        mode: dataclasses.replace(getattr(config.rpn, mode), count=count)
        for mode, count in (("training", 300), ("evaluation", 200))
    }
    options = {"rpn": dataclasses.replace(config.rpn, **proposals)}
    for stage in ("regions", "cascade"):
        if hasattr(config, stage):
            heads = getattr(config, stage)
            options[stage] = dataclasses.replace(heads, sampler=dataclasses.replace(heads.sampler, count=128))
    if "cascade" in options:
        masks = "mean" if match[1] == "2" else "last"
        options["cascade"] = dataclasses.replace(options["cascade"], masks=masks)
    return options


def load_reference(model: nnx.Module, reference: Reference, name: str) -> None:
    """Loads the reference's weights, where its tensors are those of the model."""
    _check_shapes({key: tuple(shape) for key, shape in expected_shapes(model, "official").items()}, reference, name)
    load_tensors(model, reference_weights(reference.shapes, reference.seed, reference.scales), "the reference")


def _check_shapes(expected: Shapes, reference: Reference, name: str) -> None:
    given = reference.shapes
    wrong = [f"lacks {key}" for key in sorted(expected.keys() - given.keys())]
    wrong += [f"has {key}" for key in sorted(given.keys() - expected.keys())]
    wrong += [
        f"has {key} {list(given[key])} instead of {list(expected[key])}"
        for key in sorted(expected.keys() & given.keys())
        if given[key] != expected[key]
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"The reference is not one of {name}: it {', '.join(wrong[:3])}{more}.")


def _two_stage_tolerance(quantity: str) -> float:
    if quantity.startswith("grad_norm/"):
        return TOLERANCE if _EXACT_GRADIENTS.match(quantity) else ROUNDED
    return ROUNDED if _ROUNDED_LOSSES.fullmatch(quantity) else TOLERANCE


def _shown(parts: Any, name: str, *, total: int) -> Any:
    """Parts of the work, with a bar on standard error: each takes half a minute or more."""
    import tqdm

    return tqdm.tqdm(parts, desc=f"{name} in float64, some minutes", unit="part", total=total)
