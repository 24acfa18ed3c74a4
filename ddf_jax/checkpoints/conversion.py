"""Loads checkpoint files into models, saves models, and converts files from one naming to the other."""

import logging
import os
from collections.abc import Callable, Container, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddf_jax.checkpoints.fitting import EXACT, FitRules, Head, InChannels, LoadReport, Shapes, fit
from ddf_jax.checkpoints.layouts import Naming
from ddf_jax.checkpoints.names import HEAD_BIASES
from ddf_jax.checkpoints.rules import naming_of, official_tensors, translate
from ddf_jax.checkpoints.tensor_files import read_tensors, write_tensors
from ddf_jax.checkpoints.wrappers import without_wrappers

_log = logging.getLogger(__name__)


def load_checkpoint(
    model: nnx.Module,
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    head: Head = "loaded",
    in_channels: InChannels | None = None,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
    strict: bool = True,
) -> LoadReport:
    """Loads the parameters and statistics of a file into `model`: all of them, or what the rules let differ, or none.

    The file is `.safetensors` or PyTorch's own format (see `read_tensors`), with official names or ours, also within
    what frameworks put around a module (`backbone.`, `module.`; the log names what was left out). Values are cast to
    the storage dtype of the model. The log has the report in one line.

    Args:
        model: any registered model.
        path: the file.
        ema: loads the averaged weights of a training script's checkpoint instead of the last ones.
        head: "fresh" leaves the head (`head.…`, of a detector all that depends on the classes) as it is and does not
            use the file's: for other classes.
        in_channels: adapts the first convolution to C channels of the model where the file has C': "average" gives each
            the mean over the file's channels, times C'/C; "repeat" the file's channels cyclically, times C'/C (C ≥ C').
        allow_missing: shell patterns of tensors that stay as they are where the file lacks them, such as
            `*.attention.*`, by our names or the file's.
        allow_unexpected: shell patterns of the file's tensors that are not used where the model lacks them.
        strict: False allows every missing, unexpected and wrongly shaped tensor, and warns of each.

    Returns:
        What was loaded and what was not.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the message names missing, unexpected and wrongly
            shaped tensors, and rules without effect. Or nothing at all would be loaded.
    """
    rules = FitRules(head, in_channels, allow_missing, allow_unexpected, strict)
    return load_tensors(model, read_named(path, ema=ema, own=_variables(model)), str(path), rules)


def save_checkpoint(model: nnx.Module, path: str | os.PathLike[str], *, naming: Naming = "own") -> int:
    """Writes the parameters and statistics of `model`; the suffix of `path` selects the format.

    Args:
        model: any registered model.
        path: the file to write, whole or not at all.
        naming: official names or ours.

    Returns:
        The number of tensors written.

    Raises:
        CheckpointError: the file cannot be written, or a tensor has no official name.
    """
    tensors = named_arrays(model)
    if naming == "official":
        tensors = official_tensors(tensors)
    write_tensors(path, tensors)
    return len(tensors)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    model: Callable[..., nnx.Module] | None = None,
    naming: Naming | None = None,
    ema: bool = False,
) -> int:
    """Converts a checkpoint file: formats by the suffixes, names and layouts by the rules.

    Args:
        source: the file to read.
        target: the file to write, whole or not at all.
        model: factory of a model, abstract or not, called as `model(num_classes=…)`; the file must then hold exactly
            its tensors. `functools.partial(ddf_jax.models.abstract, "ddf_resnet50")` is one.
        naming: of the target; by default the one that the source does not have.
        ema: takes the averaged weights of a training script's checkpoint instead of the last ones.

    Returns:
        The number of tensors written.

    Raises:
        CheckpointError: the source cannot be read or does not fit, or the target cannot be written.
    """
    tensors = read_named(source, ema=ema)
    found = naming_of(tensors)
    translated = translate(tensors, found)
    if model is not None:
        fit(_shapes(model(num_classes=_classes(tensors))), tensors, str(source), EXACT)
    if naming == found:
        translated = tensors
    write_tensors(target, translated)
    return len(translated)


def load_tensors(
    model: nnx.Module, tensors: Mapping[str, np.ndarray], source: str, rules: FitRules = EXACT
) -> LoadReport:
    """Loads tensors into `model` as `load_checkpoint` does. An abstract model (from `nnx.eval_shape`) becomes real.

    Args:
        model: any registered model.
        tensors: by official names or ours.
        source: the origin of the tensors, for the error.
        rules: what may differ.

    Raises:
        CheckpointError: as `load_checkpoint`, in the names that `tensors` has.
    """
    variables = _variables(model)
    arrays, report = fit(_shapes(model), tensors, source, rules)
    for name, array in arrays.items():
        old = variables[name].get_value()
        variables[name].set_value(jax.device_put(jnp.asarray(array, old.dtype), old.sharding))
    is_partial = not rules.strict and (report.initialised or report.unused)
    _log.log(logging.WARNING if is_partial else logging.INFO, "%s: %s.", source, report.line())
    return report


def read_named(path: str | os.PathLike[str], *, ema: bool = False, own: Container[str] = ()) -> dict[str, np.ndarray]:
    """The tensors of a file, without the elements of their names that neither the rules nor `own` know.

    Raises:
        CheckpointError: the file cannot be read, or two names become the same.
    """
    tensors = read_tensors(path, ema=ema)
    names = without_wrappers(tensors, own=own)
    if left_out := sorted({e for name, inner in names.items() for e in set(name.split(".")) - set(inner.split("."))}):
        _log.info("%s: names are read without %s.", path, " and ".join(f"`{element}.`" for element in left_out))
    return {names[name]: tensor for name, tensor in tensors.items()}


def named_arrays(model: nnx.Module | nnx.State) -> dict[str, np.ndarray]:
    """The parameters and statistics of a model, or of a state of its kind such as gradients, by our names."""
    return {name: np.asarray(variable.get_value()) for name, variable in _variables(model).items()}


def expected_shapes(model: nnx.Module, naming: Naming) -> Shapes:
    """Name and shape of every tensor that a checkpoint of the model holds."""
    own = _shapes(model)
    if naming == "own":
        return own
    tensors = official_tensors({name: np.broadcast_to(0.0, shape) for name, shape in own.items()})
    return {name: tensor.shape for name, tensor in tensors.items()}


def _shapes(model: nnx.Module) -> Shapes:
    return {name: variable.get_value().shape for name, variable in _variables(model).items()}


def _variables(model: nnx.Module | nnx.State) -> dict[str, nnx.Variable]:
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def _classes(tensors: Mapping[str, np.ndarray]) -> int:
    """The number of classes of a classifier's tensors."""
    return next((tensors[name].size for name in HEAD_BIASES if name in tensors), 1000)
