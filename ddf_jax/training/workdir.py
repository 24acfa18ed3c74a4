"""A run's folder, `runs/<name>/`: its small files, and whether it belongs to a recipe."""

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from ddf_jax.files import make_writable, write_atomically, write_json
from ddf_jax.training.errors import RunError
from ddf_jax.training.recipe import Recipe, changed_fields, recipe_from_json, recipe_to_json

_PACKAGES = ("ddf-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.curves = path / "curves.png"
        self._pictures = path / "pictures"
        self._recipe = path / "recipe.json"
        self._summary = path / "summary.json"

    def finished(self, recipe: Recipe) -> dict[str, Any] | None:
        """The summary of a run that has ended, or None.

        Raises:
            RunError: it was the run of another recipe.
        """
        if not self._summary.exists():
            return None
        check_same_recipe(self.path, self.recipe(), recipe)
        return json.loads(self._summary.read_text())

    def recipe(self) -> Recipe:
        """The recipe that the run was started with.

        Raises:
            RunError: there is no run here, or its recipe cannot be read.
        """
        if not self._recipe.is_file():
            raise RunError(f"There is no run in {self.path}: it has no {self._recipe.name}. `ddf train` makes one.")
        try:
            return recipe_from_json(self._recipe.read_text())
        except RunError as error:
            raise RunError(f"{self._recipe}: {error}") from None

    def create(self) -> None:
        """Makes the folder, or finds that it can be written."""
        make_writable(self.path)

    def write_recipe(self, recipe: Recipe) -> None:
        """Keeps the recipe with its results."""
        write_atomically(self._recipe, recipe_to_json(recipe))

    def write_picture(self, step: int, png: bytes) -> None:
        """Keeps the picture of the evaluation after `step`."""
        self._pictures.mkdir(exist_ok=True)
        write_atomically(self._pictures / f"{step:06d}.png", png)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Marks the run as finished."""
        write_json(self._summary, summary)


def check_same_recipe(path: Path, old: Recipe, new: Recipe) -> None:
    """Raises `RunError` naming the fields that make `new` another run than the one in `path`."""
    changes = changed_fields(old, new)
    if changes:
        raise RunError(
            f"{path} holds a run of another recipe ({'; '.join(changes)}). Set the fields back to resume it, or choose "
            f"another --workdir."
        )


def environment(mesh: Mesh) -> dict[str, Any]:
    """Kind and number of devices, number of processes, and versions: the last entries of a summary."""
    device = mesh.devices.flat[0].device_kind
    return {"device": device, "devices": mesh.size, "processes": jax.process_count(), "versions": versions()}


def versions() -> dict[str, str]:
    """Python and the packages whose version may change a result; one that is not installed as a package is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
