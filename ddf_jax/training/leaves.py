"""Names of the leaves of nested variables."""

from typing import Any

import jax


def leaf_name(path: Any) -> str:
    """A key path joined by dots, such as `stages.0.0.conv1.kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def leaf_names(tree: Any) -> list[str]:
    """The name of each leaf, in the order of `jax.tree.leaves`."""
    return [leaf_name(path) for path, _ in jax.tree.leaves_with_path(tree)]
