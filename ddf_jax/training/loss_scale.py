"""The factor of a loss in float16, without which small gradients would be 0 there."""

from typing import Any

import jax
import jax.numpy as jnp

INITIAL = 2.0**16
DOUBLED_AFTER = 2000  # steps with finite gradients


def initial_loss_scale() -> dict[str, jax.Array]:
    """The state of a factor before the first step: `scale` [] float32, `finite_steps` [] int32."""
    return {"scale": jnp.float32(INITIAL), "finite_steps": jnp.int32(0)}


def next_loss_scale(state: dict[str, Any], finite: jax.Array) -> dict[str, jax.Array]:
    """The state after a step: half the factor where the gradients were not finite, twice after 2,000 that were.

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018; the numbers are those of
    `torch.amp.GradScaler`.

    Args:
        state: before the step.
        finite: [] bool, whether all gradients were.
    """
    steps = jnp.where(finite, state["finite_steps"] + 1, 0)
    doubled = steps >= DOUBLED_AFTER
    factor = jnp.where(finite, jnp.where(doubled, jnp.float32(2), jnp.float32(1)), jnp.float32(0.5))
    return {"scale": state["scale"] * factor, "finite_steps": jnp.where(doubled, 0, steps)}
