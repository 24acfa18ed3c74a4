"""What the commands of a checkout share: `ddf bench` and `ddf report` run modules that are not in the wheel."""

from pathlib import Path

from ddf_jax.errors import UserError

FOLDER = Path(__file__).parents[2]


def require_checkout(command: str) -> None:
    """Raises a `UserError` unless this package is imported from a checkout, which has `experiments` next to it."""
    if not (FOLDER / "experiments" / "results").is_dir():
        raise UserError(
            f"`ddf {command}` needs a checkout of ddf-jax: its benchmarks and results are not in the package. In a "
            f"checkout: pip install --editable '.[train]', or python -m ddf_jax {command} in its folder."
        )
