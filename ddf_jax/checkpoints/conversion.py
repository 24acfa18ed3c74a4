"""Loads checkpoint files into models, saves models, and converts files from one naming to the other."""

import logging
import os
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddf_jax.checkpoints.rules import COUNTER, Naming, naming_of, translate
from ddf_jax.checkpoints.tensor_files import CheckpointError, read_tensors, shortened, write_tensors
from ddf_jax.checkpoints.wrappers import common_prefix, without_wrappers

_log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


def load_checkpoint(model: nnx.Module, path: str | os.PathLike[str], *, ema: bool = False) -> None:
    """Loads the parameters and statistics of a file into `model`, all of them or none.

    The file is `.safetensors` or PyTorch's own format (see `read_tensors`), with official names or ours, also within
    what frameworks put around a module (`backbone.`, `module.`; the log names what was left out). Values are cast to
    the storage dtype of the model.

    Args:
        model: any registered model of the file's sizes.
        path: the file.
        ema: loads the averaged weights of a training script's checkpoint instead of the last ones.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; the message names missing, unexpected and wrongly
            shaped tensors.
    """
    load_tensors(model, _read(path, ema=ema), str(path))


def save_checkpoint(model: nnx.Module, path: str | os.PathLike[str], *, naming: Naming = "own") -> None:
    """Writes the parameters and statistics of `model`; the suffix of `path` selects the format.

    Args:
        model: any registered model.
        path: the file to write, whole or not at all.
        naming: official names or ours.

    Raises:
        CheckpointError: the file cannot be written.
    """
    tensors = named_arrays(model)
    write_tensors(path, official_tensors(tensors) if naming == "official" else tensors)


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
    tensors = _read(source, ema=ema)
    found = naming_of(tensors)
    translated = translate(tensors, found)
    if model is not None:
        _check_shapes(tensors, expected_shapes(model(num_classes=_classes(tensors)), found), str(source))
    if naming == found:
        translated = tensors
    write_tensors(target, translated)
    return len(translated)


def load_tensors(model: nnx.Module, tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Loads tensors into `model` as `load_checkpoint` does. An abstract model (from `nnx.eval_shape`) becomes real.

    Args:
        model: any registered model of the tensors' sizes.
        tensors: by official names or ours.
        source: the origin of the tensors, for the error.

    Raises:
        CheckpointError: as `load_checkpoint`, in the names that `tensors` has.
    """
    found = naming_of(tensors)
    _check_shapes(tensors, expected_shapes(model, found), source)
    own = translate(tensors, found) if found == "official" else tensors
    for name, variable in _variables(model).items():
        old = variable.get_value()
        variable.set_value(jax.device_put(jnp.asarray(own[name], old.dtype), old.sharding))


def _read(path: str | os.PathLike[str], *, ema: bool) -> dict[str, np.ndarray]:
    """The tensors of a file, without the elements of their names that the rules do not know."""
    tensors = read_tensors(path, ema=ema)
    names = without_wrappers(tensors)
    if left_out := sorted({e for name, inner in names.items() for e in set(name.split(".")) - set(inner.split("."))}):
        _log.info("%s: names are read without %s.", path, " and ".join(f"`{element}.`" for element in left_out))
    return {names[name]: tensor for name, tensor in tensors.items()}


def official_tensors(own: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors in official names and layouts; the batch counters of torch's BatchNorm, which we lack, are 0."""
    counters = {
        name.removesuffix("var") + COUNTER: np.zeros((), np.int64) for name in own if name.rpartition(".")[2] == "var"
    }
    return translate({**own, **counters}, "own")


def named_arrays(model: nnx.Module | nnx.State) -> dict[str, np.ndarray]:
    """The parameters and statistics of a model, or of a state of its kind such as gradients, by our names."""
    return {name: np.asarray(variable.get_value()) for name, variable in _variables(model).items()}


def expected_shapes(model: nnx.Module, naming: Naming) -> Shapes:
    """Name and shape of every tensor that a checkpoint of the model holds."""
    own = {name: variable.get_value().shape for name, variable in _variables(model).items()}
    if naming == "own":
        return own
    tensors = official_tensors({name: np.broadcast_to(0.0, shape) for name, shape in own.items()})
    return {name: tensor.shape for name, tensor in tensors.items()}


def _variables(model: nnx.Module | nnx.State) -> dict[str, nnx.Variable]:
    state = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): variable for path, variable in state}


def _classes(tensors: Mapping[str, np.ndarray]) -> int:
    """The number of classes of a classifier's tensors."""
    head = tensors.get("fc.bias", tensors.get("head.bias"))
    return 1000 if head is None else head.size


def _check_shapes(tensors: Mapping[str, np.ndarray], expected: Shapes, source: str) -> None:
    # torch's counters are optional in every file.
    got = {name: tensor.shape for name, tensor in tensors.items() if not name.endswith(f".{COUNTER}")}
    expected = {name: shape for name, shape in expected.items() if not name.endswith(f".{COUNTER}")}
    problems = {
        "missing": [f"{name} {list(shape)}" for name, shape in expected.items() if name not in got],
        "unexpected": [f"{name} {list(shape)}" for name, shape in got.items() if name not in expected],
        "of another shape": [
            f"{name} must be {list(shape)}, got {list(got[name])}"
            for name, shape in expected.items()
            if name in got and got[name] != shape
        ],
        "not floating-point": [
            f"{name} is {tensors[name].dtype}"
            for name in expected
            if name in got and not jnp.issubdtype(tensors[name].dtype, jnp.floating)
        ],
    }
    lines = [f"  {kind} ({len(names)}): {shortened(names, '; ')}" for kind, names in problems.items() if names]
    if lines:
        cause = common_prefix([name for name in got if name not in expected])
        raise CheckpointError(f"{source} does not fit the model; nothing was loaded.{cause}\n" + "\n".join(lines))
