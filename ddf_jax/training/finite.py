"""Stops a run whose numbers have left the finite ones, and says where they left them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.training.errors import NonFiniteError
from ddf_jax.training.state import Variables, leaf_names
from ddf_jax.training.step import StepReport

_ADVICE = "lower `optimizer.learning_rate`, lengthen `optimizer.warmup_epochs`, or compute in float32 (`dtype`)"


def check_report(step: int, report: StepReport, parameter_names: Sequence[str], previous_loss: float | None) -> None:
    """Raises `NonFiniteError` where training step `step` (the first is 1) met anything infinite or not a number.

    The cause is the first that fails of the batch, the loss and the gradients, the order in which a step meets them.
    """
    bad = [
        name for name, square in zip(parameter_names, report.gradient_squares, strict=True) if not np.isfinite(square)
    ]
    faults = [what for what, found in report.faults.items() if found]
    if faults:
        raise NonFiniteError(f"Stopped at step {step}: the batch holds {' and '.join(faults)}; check the data.")
    if not np.isfinite(report.loss):
        before = "" if previous_loss is None else f", after {previous_loss:.4g} a step before"
        raise NonFiniteError(f"Stopped at step {step}: the loss is {report.loss} on a finite batch{before}; {_ADVICE}.")
    if bad:
        raise NonFiniteError(
            f"Stopped at step {step}: the loss is {report.loss:.4g}, but the gradient of {_listed(bad)} is not finite; "
            f"{_ADVICE}."
        )


def check_variables(step: int, variables: Variables) -> None:
    """Raises `NonFiniteError` naming what in the state after `step` is not finite. Waits for the devices."""
    names, leaves = leaf_names(variables), jax.tree.leaves(variables)
    bad = [name for name, leaf in zip(names, leaves, strict=True) if not _is_finite(leaf)]
    if bad:
        raise NonFiniteError(f"Stopped at step {step}: after the update {_listed(bad)} is not finite; {_ADVICE}.")


def _is_finite(leaf: jax.Array) -> bool:
    return not jnp.issubdtype(leaf.dtype, jnp.floating) or bool(np.isfinite(np.asarray(leaf)).all())


def _listed(names: list[str]) -> str:
    return f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` (and of {len(names) - 1} more)"
