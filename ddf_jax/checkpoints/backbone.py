"""The weights of a classifier in the backbone of a detector."""

import numpy as np

from ddf_jax.checkpoints.fitting import HEAD, FitRules, LoadReport, Shapes, Tensors, fit
from ddf_jax.checkpoints.rules import naming_of, translate_name, unknown_names
from ddf_jax.checkpoints.tensor_files import CheckpointError

BACKBONE = "backbone."
"""The names of a backbone begin so, ours and MMDetection's."""


def is_for_backbone(shapes: Shapes, tensors: Tensors) -> bool:
    """Whether the model has a backbone and the tensors are of a model that has none: a classifier."""
    has_one = any(name.startswith(BACKBONE) for name in shapes)
    return has_one and not any(name.startswith(BACKBONE) for name in tensors)


def fit_backbone(
    shapes: Shapes, tensors: Tensors, source: str, rules: FitRules
) -> tuple[dict[str, np.ndarray], LoadReport]:
    """As `fit`, for the part of the model below `backbone.`; the head of the classifier is not used."""
    if rules.head == "fresh":
        raise CheckpointError(
            f"`head` is fresh, but {source} is a classifier's, of which only the backbone is loaded. Leave it out."
        )
    inner = {name.removeprefix(BACKBONE): shape for name, shape in shapes.items() if name.startswith(BACKBONE)}
    naming = naming_of(tensors, own=inner)
    unknown = set(unknown_names(list(tensors), naming))
    own = {name: name if naming == "own" or name in unknown else translate_name(name, naming) for name in tensors}
    head = [name for name in tensors if own[name].startswith(HEAD)]
    rest = {name: tensor for name, tensor in tensors.items() if name not in head}
    arrays, report = fit(inner, rest, source, rules)
    arrays = {BACKBONE + name: array for name, array in arrays.items()}
    return arrays, LoadReport(
        loaded=report.loaded,
        initialised=tuple(name for name in shapes if name not in arrays),
        unused=(*head, *report.unused),
        adapted=tuple(BACKBONE + name for name in report.adapted),
    )
