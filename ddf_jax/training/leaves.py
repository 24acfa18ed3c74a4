"""Names of the leaves of nested variables."""

from typing import Any

import jax
import jax.numpy as jnp


def leaf_name(path: Any) -> str:
    """A key path joined by dots, such as `stages.0.0.conv1.kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def leaf_names(tree: Any) -> list[str]:
    """The name of each leaf, in the order of `jax.tree.leaves`."""
    return [leaf_name(path) for path, _ in jax.tree.leaves_with_path(tree)]


def floating(tree: dict[str, Any]) -> dict[str, Any]:
    """Nested variables without the leaves that are no floating-point numbers, such as random keys and counters."""
    kept = {}
    for name, item in tree.items():
        if isinstance(item, dict):
            if inner := floating(item):
                kept[name] = inner
        elif jnp.issubdtype(item.dtype, jnp.floating):
            kept[name] = item
    return kept
