"""Files of references: `PATH.json` with settings and scalars, and `PATH.npz` with arrays. They are not trusted."""

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddf_jax.errors import UserError

LARGEST = 2**30
"""Bytes of a reference's arrays, at most."""

Shapes = dict[str, tuple[int, ...]]
Recorded = dict[str, np.ndarray | None]
"""By quantity; None is the gradient of a frozen parameter."""


class Reference(NamedTuple):
    """What a reference states about its network.

    Args:
        shapes: of the tensors, by official name.
        seed: of the weights; the inputs have others that follow from it.
        scales: regular expressions and factors of the weights, as in `reference_weights`.
        library: that it was recorded with, such as "mmdet 3.3.0"; "" where the file does not state it.
        recorded: every quantity.
    """

    shapes: Shapes
    seed: int
    scales: list[tuple[str, float]]
    library: str
    recorded: Recorded


def read_documents(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON object and the arrays of a reference.

    Args:
        path: of both files, without suffix or with that of either.

    Raises:
        UserError: a file is missing, damaged, of another kind or too large.
    """
    stem = path.with_suffix("") if path.suffix in (".json", ".npz") else path
    as_json, as_npz = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("json", "npz"))
    if missing := [str(file) for file in (as_json, as_npz) if not file.is_file()]:
        raise UserError(f"A reference is two files, PATH.json and PATH.npz: there is no {' and no '.join(missing)}.")
    try:
        document = json.loads(as_json.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{as_json} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise UserError(f"{as_json} must be a JSON object, got a {type(document).__name__}.")
    return document, _read_arrays(as_npz)


def detector_reference(path: Path) -> Reference:
    """The reference of a detector.

    Raises:
        UserError: as `read_documents`, or an entry is missing or cannot be used.
    """
    document, arrays = read_documents(path)
    required = ("library", "seed", "scales", "state", "losses", "total_loss", "grad_norm")
    if missing := [key for key in required if key not in document]:
        raise UserError(f"{path} is no reference of a detector: its JSON lacks {', '.join(missing)}.")
    recorded: Recorded = dict(arrays)
    recorded |= {f"losses/{name}": _numbers(name, loss) for name, loss in _object(document, "losses").items()}
    recorded |= {"total_loss": _numbers("total_loss", document["total_loss"])}
    recorded |= _norms(document)
    if "n_params" in document:
        recorded["n_params"] = _numbers("n_params", document["n_params"])
    if "samples" in document:
        recorded["samples"] = _numbers("samples", document["samples"]).astype(np.int64).reshape(-1, 2)
    seed, scales = _seed(document, "seed"), _scales(document["scales"])
    return Reference(_shapes(document, "state"), seed, scales, str(document["library"]), recorded)


def neck_references(path: Path, parts: tuple[str, ...], modes: tuple[str, ...]) -> dict[str, Reference]:
    """By part, the references of the parts of a pyramid's file.

    Raises:
        UserError: as `read_documents`, or an entry is missing or cannot be used.
    """
    document, arrays = read_documents(path)
    required = [f"{part}/{key}" for part in parts for key in ("seed", "state", *modes)]
    if missing := [key for key in required if key not in document]:
        raise UserError(f"{path} is no reference of a pyramid: its JSON lacks {', '.join(missing)}.")
    if others := [name for name in arrays if not name.startswith(tuple(f"{part}/" for part in parts))]:
        raise UserError(f"{path} has arrays of no part of a pyramid ({', '.join(parts)}): {', '.join(others)}.")
    found = {}
    for part in parts:
        recorded: Recorded = {name: array for name, array in arrays.items() if name.startswith(f"{part}/")}
        for mode in (f"{part}/{mode}" for mode in modes):
            of_mode = _object(document, mode)
            recorded |= {f"{mode}/{name}": array for name, array in _norms(of_mode).items()}
            recorded[f"{mode}/loss"] = _numbers(f"{mode}/loss", of_mode.get("loss"))
            if "shapes" in of_mode:
                recorded[f"{mode}/shapes"] = _numbers(f"{mode}/shapes", of_mode["shapes"])
            for name, value in _object(of_mode, "running_mean_abs_sum", {}).items():
                recorded[f"{mode}/running_mean_abs_sum/{name}"] = _numbers(name, value)
        found[part] = Reference(_shapes(document, f"{part}/state"), _seed(document, f"{part}/seed"), [], "", recorded)
    return found


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as members:
            size = sum(member.file_size for member in members.infolist())
        if size > LARGEST:
            raise UserError(f"{path} must have at most {LARGEST} bytes of arrays, got {size}.")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except UserError:
        raise
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a file of arrays (npz): {error}.") from error
    if others := [name for name, array in found.items() if array.dtype.kind not in "biuf"]:
        raise UserError(f"{path} must have arrays of numbers, got others: {', '.join(others)}.")
    return found


def _object(document: Mapping[str, Any], key: str, default: Any = None) -> dict[str, Any]:
    value = document.get(key, default)
    if not isinstance(value, dict):
        raise UserError(f"`{key}` of a reference must be an object of JSON, got {value!r:.80}.")
    return value


def _norms(document: Mapping[str, Any]) -> Recorded:
    norms = _object(document, "grad_norm").items()
    return {f"grad_norm/{name}": None if norm is None else _numbers(name, norm) for name, norm in norms}


def _numbers(name: str, value: Any) -> np.ndarray:
    """A number or lists of numbers."""
    try:
        array = np.array(value)
    except ValueError:  # of lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise UserError(f"`{name}` of a reference must be a number or a list of numbers, got {value!r:.80}.")
    return array


def _seed(document: Mapping[str, Any], key: str) -> int:
    seed = document[key]
    if type(seed) is not int or seed < 0:
        raise UserError(f"`{key}` of a reference must be an integer ≥ 0, got {seed!r:.80}.")
    return seed


def _shapes(document: Mapping[str, Any], key: str) -> Shapes:
    shapes = _object(document, key)
    for name, shape in shapes.items():
        if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
            raise UserError(f"`{key}` of a reference must have a list of sizes for {name}, got {shape!r:.80}.")
    return {name: tuple(shape) for name, shape in shapes.items()}


def _scales(pairs: Any) -> list[tuple[str, float]]:
    try:
        scales = [(str(pattern), float(factor)) for pattern, factor in pairs]
        for pattern, _ in scales:
            re.compile(pattern)
    except (TypeError, ValueError, re.error) as error:
        rule = "`scales` of a reference must be pairs of a regular expression and a factor"
        raise UserError(f"{rule}, got {pairs!r:.80}.") from error
    return scales
