"""A trained run as a Python value: its model, and predictions for a user's images."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ddf_jax import models
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import RunError, UserError
from ddf_jax.training.checkpoint import Checkpoints
from ddf_jax.training.devices import Devices, batch_split, data_mesh, padded_rows
from ddf_jax.training.leaves import floating
from ddf_jax.training.losses import METRICS
from ddf_jax.training.processes import ending_together
from ddf_jax.training.recipe import Recipe, read_recipe, recipe_file_record
from ddf_jax.training.retention import Score
from ddf_jax.training.state import ModelState, Variables, abstract_model, averaged_model, eval_model
from ddf_jax.training.step import jit_predict
from ddf_jax.training.tasks import Batch
from ddf_jax.training.tasks.classification import Classification
from ddf_jax.training.tasks.depth_upsampling import DepthUpsampling
from ddf_jax.training.workdir import RunFolder

if TYPE_CHECKING:
    from ddf_jax.data.reading import UserImage

_log = logging.getLogger(__name__)

_BATCH_SIZE = 32  # images a device predicts at a time


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and its run.

    Args:
        recipe: the recipe of the run.
        info: the data it was trained on.
        step: training steps taken.
        state: the model, on the devices of `mesh`.
        mesh: where predictions and evaluations run.
    """

    recipe: Recipe
    info: DataInfo
    step: int
    state: ModelState
    mesh: Mesh

    def model(self) -> nnx.Module:
        """The model in evaluation mode: `logits = run.model()(images)`, or `depth = run.model()(images, low)`."""
        return eval_model(self.state)

    @functools.cached_property
    def predict_step(self) -> Callable[[Variables, Batch], Any]:
        """`(model's variables, batch) -> predictions`, compiled once for each shape of a batch."""
        return jit_predict(self.recipe.task, self.mesh, self.state)


@ending_together()
def load_run(
    workdir: Path | str,
    checkpoint: int | str = "newest",
    *,
    devices: Devices | None = None,
    recipe_file: Path | str | None = None,
) -> Run:
    """The model of a run in `workdir`. The data set itself is not needed.

    A model or a metric that is not registered is one of the run's own recipe file. The run recorded the file's path and
    SHA-256: it is executed again if it is unchanged and lies outside the run's folder, in which nothing is ever
    executed.

    Args:
        workdir: the run's folder.
        checkpoint: the step of a checkpoint, "newest", the newest readable one, or "best", the readable one with the
            best test score of those that were evaluated at their own step; with ":ema" its averaged weights, as
            "best:ema". "ema" are the newest ones.
        devices: where the parameters go; default: all devices of all processes.
        recipe_file: the Python file to execute, instead of the recorded one, where a name in the recipe is not
            registered.

    Raises:
        RunError: there is no run or no such checkpoint, it is not readable, or nothing registers its model.
    """
    folder, mesh = RunFolder(Path(workdir)), data_mesh(devices)
    which, averaged = parse_checkpoint(checkpoint)
    checkpoints = Checkpoints(folder.checkpoints)
    while True:
        step = find_checkpoint(folder, checkpoints, which)
        try:
            try:
                recipe = checkpoints.recipe(step)
            except RunError:  # of an earlier version, which can be mended in the run's own recipe alone
                recipe = folder.recipe()
            info = checkpoints.data_info(step)
            if (missing := _unregistered(recipe)) is not None:
                recorded = checkpoints.record(step).get("recipe_file")
                _register(recipe, missing, folder.path, recorded, None if recipe_file is None else Path(recipe_file))
            structure, abstract = abstract_model(recipe, info, mesh)
            wanted = {"model": abstract}
            if averaged:
                _check_averaged(folder, checkpoints, step)
                wanted["ema"] = floating(abstract)
            variables = checkpoints.load(step, wanted)
            model = ModelState(structure, averaged_model(variables) if averaged else variables["model"])
        except Exception:
            # A run that is being trained removes a checkpoint that is being read: there is a newer one.
            if isinstance(which, str) and checkpoints.was_removed(step):
                continue
            raise
        return Run(recipe, info, step, model, mesh)


def parse_checkpoint(text: int | str) -> tuple[int | Literal["newest", "best"], bool]:
    """The checkpoint that a user names, and whether its averaged weights are meant.

    >>> parse_checkpoint("best:ema"), parse_checkpoint("600"), parse_checkpoint("ema")
    (('best', True), (600, False), ('newest', True))
    """
    which, colon, kind = str(text).partition(":")
    if (which, colon) == ("ema", ""):
        which, kind = "newest", "ema"
    if kind == "ema" or not (kind or colon):
        if which.isdecimal():
            return int(which), kind == "ema"
        if which == "newest" or which == "best":
            return which, kind == "ema"
    raise UserError(
        f"`checkpoint` must be a step, newest or best, with :ema for averaged weights, such as best:ema; got {text!r}."
    )


def find_checkpoint(folder: RunFolder, checkpoints: Checkpoints, checkpoint: int | Literal["newest", "best"]) -> int:
    """The step of a run's checkpoint; the best one by the score of the averaged weights, where the run has them.

    Raises:
        RunError: there is no such checkpoint, or it is not readable.
    """
    recipe = folder.recipe()
    score = Score.of(recipe.task, averaged=recipe.ema_decay > 0)
    match checkpoint:
        case "newest":
            step = checkpoints.newest()
        case "best":
            step = checkpoints.best(score)
        case _:
            step = checkpoints.readable(checkpoint)
    if step is None:
        raise RunError(f"The run in {folder.path} has no checkpoint yet. `ddf train` resumes it.")
    return step


def _check_averaged(folder: RunFolder, checkpoints: Checkpoints, step: int) -> None:
    if not any(name.startswith("ema.") for name in checkpoints.record(step)["arrays"]):
        raise RunError(
            f"The checkpoint of step {step} in {folder.path} must have averaged weights, but has none: the run was "
            f"trained without `ema_decay`."
        )


def _unregistered(recipe: Recipe) -> str | None:
    """A name in a recipe that predictions and scores need, and that nothing is registered under."""
    if not models.is_registered(recipe.model.name):
        return f"model {recipe.model.name!r}"
    metrics = recipe.task.metrics if isinstance(recipe.task, Classification) else ()
    return next((f"metric {name!r}" for name in metrics if name not in METRICS), None)


def _register(recipe: Recipe, missing: str, folder: Path, recorded: dict[str, str] | None, given: Path | None) -> None:
    """Executes the recipe file of a run, which registers what its recipe names."""
    if given is None and (problem := _why_not_executed(recorded, folder)):
        raise RunError(
            f"The {missing} of the run in {folder} is not registered, and {problem}. Name the Python file that "
            f"registers it, which is then executed: --recipe FILE (in Python: `recipe_file`)."
        )
    file = given or Path((recorded or {})["path"])
    read_recipe(file)
    if given and recorded and recipe_file_record(given)["sha256"] != recorded["sha256"]:
        _log.warning("%s differs from %s as it was when the run was trained.", given, recorded["path"])
    if still := _unregistered(recipe):
        raise RunError(f"{file} must register the {still} of the run in {folder}, but does not.")


def _why_not_executed(recorded: dict[str, str] | None, folder: Path) -> str | None:
    if recorded is None:
        return "the run has no recipe file of its own"
    file = Path(recorded["path"])
    if file.resolve().is_relative_to(folder.resolve()):
        return f"its recipe file {file} lies in the run's folder, in which nothing is executed"
    if not file.is_file():
        return f"its recipe file {file} is no longer there"
    if file != file.resolve():  # `evil.py` or `/proc/self/cwd/evil.py` would be a file next to a folder from elsewhere
        return f"its recipe file {file} is a link or relative"
    if recipe_file_record(file)["sha256"] != recorded["sha256"]:
        return f"its recipe file {file} has changed since"
    return None


def predict(run: Run, images: "Sequence[UserImage] | np.ndarray") -> np.ndarray:
    """Predictions for any number of images, [N, …] in their order; of a classifier probabilities [N, classes].

    Args:
        run: from `load_run`; its model takes an image alone. `run.info.class_names` names a classifier's classes.
        images: files, pillow images, or uint8 arrays [H, W] or [H, W, C] of any size, prepared as the run's own
            evaluation images are.

    Raises:
        UserError: an image cannot be read, or the model takes more than an image.

    Example::

        run = ddf_jax.load_run("runs/digits")
        probabilities = ddf_jax.predict(run, ["seven.png", "one.png"])
        names = [run.info.class_names[label] for label in probabilities.argmax(-1)]
    """
    from ddf_jax.data.reading import read_image

    task = run.recipe.task
    if task.inputs != ("image",):
        raise RunError(
            f"`predict` needs a run whose model takes an image alone, got {run.recipe.name}, whose model takes "
            f"{' and '.join(task.inputs)}. Try {task.used_by}."
        )
    if not len(images):
        raise RunError("`images` must hold an image, got none.")
    size = padded_rows(len(images), run.mesh, _BATCH_SIZE)
    predictions = []
    for start in range(0, len(images), size):
        batch = np.stack([read_image(image, run.info, run.recipe.data) for image in images[start : start + size]])
        padded = np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
        found = run.predict_step(run.state.variables, {"image": jax.device_put(padded, batch_split(run.mesh))})
        predictions.append(np.asarray(found)[: len(batch)])
    return np.concatenate(predictions)


def upsample(run: Run, image: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Depth of the resolution of an image, float32 [H, W] in the unit of `low`.

    Args:
        run: from `load_run`, of joint depth upsampling.
        image: [H, W, 3] in [0, 1].
        low: depth [⌈H/S⌉, ⌈W/S⌉], S the run's scale, 0 in holes.

    Raises:
        RunError: the run is of another task, or the sizes do not fit.
    """
    task = run.recipe.task
    if not isinstance(task, DepthUpsampling):
        raise RunError(f"The run must be one of depth upsampling, got {run.recipe.name}, a {type(task).__name__}.")
    task.check_low(low.shape, *image.shape[:2])
    structure, variables = nnx.split(run.model())
    upsample_once = jax.jit(lambda variables, *inputs: nnx.merge(structure, variables)(*inputs))
    return np.asarray(upsample_once(variables, image[None], low[None, ..., None])[0, ..., 0])
