"""Checkpoint files to dictionaries of arrays and back; the only file that depends on file formats."""

import argparse
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from ddf_jax.errors import UserError
from ddf_jax.files import write_atomically

_TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".tar")  # .pth.tar is what timm's training script writes
_SUFFIXES = (".safetensors", *_TORCH_SUFFIXES)
_PLAIN = ("state_dict", "model_state_dict", "model")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel and EMA, torch.compile, Lightning


class CheckpointError(UserError):
    """A checkpoint cannot be read or written, or does not fit the model."""


def read_tensors(path: str | os.PathLike[str], *, ema: bool = False) -> dict[str, np.ndarray]:
    """The named arrays of a `.safetensors` or PyTorch (`.pth`, `.pt`, `.bin`, `.pth.tar`) file.

    Training checkpoints are unwrapped: entries such as `state_dict` or `model` (with `ema`, the averaged weights
    instead), and prefixes such as `module.` that all names share. PyTorch files need torch and are read with
    `weights_only=True`: a file that contains code is refused.

    Raises:
        CheckpointError: no such file, another format, truncated, code inside, or not one array per name.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}.")
    _check_suffix(path)
    return unwrap(_read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path), path, ema=ema)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays atomically as `.safetensors` or, with the other suffixes, as a PyTorch state dict.

    Raises:
        CheckpointError: the suffix is none of these, the folder cannot be written to, or torch is needed and missing.
    """
    path = Path(path)
    _check_suffix(path)
    contiguous = {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}
    data = safetensors.numpy.save(contiguous) if path.suffix == ".safetensors" else _torch_bytes(path, contiguous)
    try:
        write_atomically(path, data)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror}.") from error


def unwrap(content: object, path: Path, *, ema: bool = False) -> dict[str, np.ndarray]:
    """The flat dictionary of arrays inside `content`, without the wrappers of training scripts.

    Args:
        content: what the file holds.
        path: the file, for messages.
        ema: takes the averaged weights.

    Raises:
        CheckpointError: `content` is no dictionary with one array per name, or it has no averaged weights for `ema`.
    """
    keys = _AVERAGED if ema else (*_PLAIN, *_AVERAGED)
    wrapper = content if isinstance(content, Mapping) else {}
    wrapped = [wrapper[key] for key in keys if isinstance(wrapper.get(key), Mapping)]
    if wrapped:
        content = wrapped[0]
    elif ema:
        raise CheckpointError(f"{path} holds no averaged weights (none of {', '.join(_AVERAGED)}).")
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} must hold named arrays, got {type(content).__name__} of none.")
    # torch.optim.swa_utils.AveragedModel stores a count of its updates with the weights.
    tensors = {str(name): value for name, value in content.items() if name != "n_averaged"}
    strange = {name: type(value).__name__ for name, value in tensors.items() if not isinstance(value, np.ndarray)}
    if strange:
        raise CheckpointError(f"{path} must hold one array per name, got {strange}.")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}.") from error


def _read_torch(path: Path) -> object:
    torch = _torch(path)
    # timm's training checkpoints hold the command line's options in this class, which runs no code.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of the unpickler, the zip reader or torch
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{path} is not a whole PyTorch file of weights alone (had it code inside, none was run): {reason}"
            ) from error
    return _from_torch(torch, content)


def _torch_bytes(path: Path, tensors: Mapping[str, np.ndarray]) -> bytes:
    torch = _torch(path)
    buffer = io.BytesIO()
    torch.save({name: _to_torch(torch, value) for name, value in tensors.items()}, buffer)
    return buffer.getvalue()


def _from_torch(torch, content: Any) -> object:
    """`content` with arrays in place of tensors, at any depth of dictionaries."""
    if isinstance(content, Mapping):
        return {key: _from_torch(torch, value) for key, value in content.items()}
    if not isinstance(content, torch.Tensor):
        return content
    tensor = content.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # NumPy has no bfloat16 of its own
        return tensor.view(torch.int16).numpy().view(jnp.bfloat16)
    return tensor.numpy()


def _to_torch(torch, value: np.ndarray):
    if value.dtype == jnp.bfloat16:
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value.copy())


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path.name} is in PyTorch's own format, which only PyTorch reads and writes: "
            '`pip install "ddf-jax[torch]"`, or use a .safetensors file.'
        ) from error
    return torch


def _check_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise CheckpointError(f"A checkpoint's name must end in one of {', '.join(_SUFFIXES)}, got {path.name!r}.")
