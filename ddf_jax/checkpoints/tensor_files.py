"""Checkpoint files to dictionaries of arrays and back; the only file that depends on file formats."""

import argparse
import io
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping
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
# The entries in which training scripts keep the last weights and the averaged ones.
_PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema_model", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel and EMA, torch.compile, Lightning
# Counters that tools store among the weights: torch.optim.swa_utils.AveragedModel, thop.
_COUNTERS = ("n_averaged", "total_ops", "total_params")


class CheckpointError(UserError):
    """A checkpoint cannot be read or written, or does not fit the model."""


def read_tensors(path: str | os.PathLike[str], *, ema: bool = False) -> dict[str, np.ndarray]:
    """The named arrays of a safetensors or PyTorch file, which its content tells apart (`.ckpt` is as good as `.pth`).

    Training checkpoints are unwrapped: entries such as `state_dict`, `model` or `net` at any depth (with `ema`, the
    averaged weights instead), what is stored with the weights, and prefixes such as `module.` that all names share.
    PyTorch files need torch and are read with `weights_only=True`: a file that contains code is refused.

    Raises:
        CheckpointError: no such file, another format, truncated, code inside, or no arrays by name.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint file {path}.")
    return unwrap(_read_torch(path) if _is_torch(path) else _read_safetensors(path), path, ema=ema)


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
        CheckpointError: `content` holds no arrays by name, or no averaged weights for `ema`.
    """
    if ema:
        averaged = next(_entries(content, _AVERAGED), None)
        if averaged is None:
            raise CheckpointError(f"{path} holds no averaged weights (none of {', '.join(_AVERAGED)}).")
        content = averaged
    while (inner := next(_entries(content, (*_PLAIN, *_PREFIXES, *_AVERAGED)), None)) is not None:
        content = inner
    found = content if isinstance(content, Mapping) else {}
    tensors = {
        str(name): value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and str(name).rpartition(".")[2] not in _COUNTERS
    }
    if not tensors:
        raise CheckpointError(
            f"{path} must hold arrays by name, or a dictionary of them in one of {', '.join(_PLAIN)}; got "
            f"{_described(content)}."
        )
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _entries(content: object, keys: tuple[str, ...]) -> Iterator[Mapping[Any, Any]]:
    """The dictionaries with arrays, at any depth, in the entries of a dictionary with these names, in their order."""
    if isinstance(content, Mapping):
        for key in keys:
            inner = content.get(key.removesuffix("."))
            if isinstance(inner, Mapping) and _has_arrays(inner):
                yield inner


def _has_arrays(content: object) -> bool:
    return isinstance(content, np.ndarray) or (isinstance(content, Mapping) and any(map(_has_arrays, content.values())))


def _described(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    entries = [f"{name}: {type(value).__name__}" for name, value in content.items()]
    return f"a dictionary of {shortened(entries)}" if entries else "an empty dictionary"


def shortened(items: list[str], separator: str = ", ", most: int = 10) -> str:
    """The first of many items, and how many the rest are.

    >>> shortened(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    rest = len(items) - most
    return separator.join(items[:most]) + (f" and {rest} more" if rest > 0 else "")


def _is_torch(path: Path) -> bool:
    """Whether a file is PyTorch's (a zip archive or a pickle) and not safetensors (a length, then JSON)."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return False
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return True
    _check_suffix(path)
    return path.suffix in _TORCH_SUFFIXES


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except (KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} holds arrays of a type that NumPy lacks ({error}). Convert them.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}.") from error


def _read_torch(path: Path) -> object:
    torch = _torch(path)
    with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of the unpickler, the zip reader or torch
            if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
                raise CheckpointError(
                    f"{path} holds an object of the class {refused[1]} with its weights, which is not read, for that "
                    f"could run code. Save the weights alone where the class is known: "
                    f"torch.save(model.state_dict(), ...)."
                ) from error
            raise CheckpointError(
                f"{path} is not a whole PyTorch file of weights alone (had it code inside, none was run): "
                f"{_first_sentence(error)}"
            ) from error
    return _from_torch(torch, content)


def _harmless() -> list[Any]:
    """What training checkpoints hold with the weights: types whose construction only stores their arguments."""
    functions = [
        (function, f"{package}.multiarray.{name}")
        for value, name in ((np.float64(0), "scalar"), (np.zeros(0), "_reconstruct"))
        for function in [value.__reduce__()[0]]
        for package in ("numpy.core", "numpy._core")  # before NumPy 2 and since
    ]
    dtypes = {type(np.dtype(code)) for code in "?bhilqBHILQefdSUO"}
    paths = (pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath)
    builtin = (int, float, bool, str, list, dict, tuple, set)
    default_dict = (_empty_dict, "collections.defaultdict")  # torch fills no other kind of dictionary
    return [*functions, default_dict, np.ndarray, np.dtype, *dtypes, *paths, *builtin, argparse.Namespace]


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _first_sentence(error: Exception) -> str:
    """What torch found, without its advice to read the file in spite of it."""
    text = str(error).rpartition("Unpickler error:")[2].strip() or type(error).__name__
    return re.split(r"(?<=\.)\s|\n", text)[0]


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
