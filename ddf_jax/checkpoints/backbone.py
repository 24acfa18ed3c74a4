"""The weights of a classifier in the backbone of a detector."""

from collections.abc import Iterable

import numpy as np

from ddf_jax.checkpoints.fitting import HEAD, FitRules, LoadReport, Shapes, Tensors, fit
from ddf_jax.checkpoints.rules import naming_of, translate_name, unknown_names
from ddf_jax.checkpoints.tensor_files import CheckpointError, shortened

BACKBONE = "backbone."
"""The names of a backbone begin so, ours and MMDetection's."""
_NECK = "neck."


def own_names(shapes: Shapes) -> set[str]:
    """Our names of a model's tensors and, of a detector, also those that its backbone has as a classifier."""
    return {*shapes, *_inner(shapes)}


def is_for_backbone(shapes: Shapes, tensors: Iterable[str]) -> bool:
    """Whether the model has a backbone, and tensors of these names are of a model without a neck: a classifier."""
    return bool(_inner(shapes)) and not any(name.startswith(_NECK) for name in tensors)


def fit_backbone(
    shapes: Shapes, tensors: Tensors, source: str, rules: FitRules
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """As `fit`, for the part of the model below `backbone.`; the head of the classifier is not used.

    Args:
        shapes: of the detector's tensors, by our names.
        tensors: of the classifier, by official names or ours, below `backbone.` or not.
        source: the origin of the tensors, for errors.
        rules: what may differ; patterns match names with `backbone.` as well as without.
    """
    if rules.head == "fresh":
        raise CheckpointError(
            f"`head` is fresh, but {source} is a classifier's, of which only the backbone is loaded. Leave it out."
        )
    if both := sorted(name for name in tensors if BACKBONE + name in tensors):
        raise CheckpointError(f"{source} has {shortened(both)} with `{BACKBONE}` and without; keep one of them.")
    inner, tensors = _inner(shapes), {name.removeprefix(BACKBONE): tensor for name, tensor in tensors.items()}
    naming = naming_of(tensors, own=inner)
    unknown = set(unknown_names(list(tensors), naming))
    own = {
        name: name if naming == "own" or name in unknown else translate_name(name, naming, tensors) for name in tensors
    }
    head = [name for name in tensors if own[name].startswith(HEAD)]
    rest = {name: tensor for name, tensor in tensors.items() if name not in head}
    arrays, report = fit(inner, rest, f"{source}, taken as the weights of a backbone,", rules, prefix=BACKBONE)
    arrays = {BACKBONE + name: array for name, array in arrays.items()}
    return arrays, LoadReport(
        loaded=report.loaded,
        initialised=tuple(name for name in shapes if name not in arrays),
        unused=(*head, *report.unused),
        adapted=tuple(BACKBONE + name for name in report.adapted),
    )


def _inner(shapes: Shapes) -> Shapes:
    return {name.removeprefix(BACKBONE): shape for name, shape in shapes.items() if name.startswith(BACKBONE)}
