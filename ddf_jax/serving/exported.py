"""Reads the file of an exported network and runs it. It needs JAX, and flatbuffers, which `jax.export` imports."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from ddf_jax.errors import RunError

FORMAT = 1
"""Of the file; a reader refuses any other."""

METADATA, PROGRAM, WEIGHTS = "metadata", "program", "weights/"
"""Names in the file, of the last one the start: what is known about the network as JSON, the serialised programs
(`program`, `program_1`, …) and the parameters and statistics by name."""


class ExportedModel:
    """A network without the code that built it.

    Args:
        metadata: what `ddf export` recorded: `name`, `step`, `model`, `task`, `data`, `platforms`, `programs`, `jax`.
        weights: parameters and statistics by name.
        programs: one for each shape of the inputs.
    """

    def __init__(
        self, metadata: Mapping[str, Any], weights: Mapping[str, jax.Array], programs: list[export.Exported]
    ) -> None:
        self.metadata, self.weights = metadata, dict(weights)
        self._programs = [jax.jit(program.call) for program in programs]

    def __call__(self, arrays: Mapping[str, jax.typing.ArrayLike]) -> dict[str, jax.Array]:
        """The predictions for a batch, compiled at the first call for its shapes.

        Args:
            arrays: by name, of the dtypes and shapes in `metadata["programs"]`, such as
                `{"image": uint8 [b, h, w, 3]}`.

        Raises:
            ValueError: they do not fit.
        """
        return self.apply(self.weights, arrays)

    def apply(
        self, weights: Mapping[str, jax.Array], arrays: Mapping[str, jax.typing.ArrayLike]
    ) -> dict[str, jax.Array]:
        """The same as a function of the weights."""
        for inputs, program in zip(self.inputs, self._programs, strict=True):
            if _fits(arrays, inputs):
                return program(dict(weights), dict(arrays))
        raise ValueError(
            f"The arrays must be {' or '.join(map(_text, self.inputs))}, where a letter is any size, got "
            f"{_text(kinds_of(arrays))}."
        )

    @property
    def inputs(self) -> list[dict[str, dict[str, Any]]]:
        """For each program `{name: {"dtype", "shape"}}`; a string in a shape is a size that may vary."""
        return [program["inputs"] for program in self.metadata["programs"]]


def load_exported(file: Path | str) -> ExportedModel:
    """The network in a file that `ddf export` wrote, its weights on the default device.

    Raises:
        RunError: there is no such file, it is damaged, or of another version of the format.
    """
    path = Path(file)
    try:
        with path.open("rb") as opened, np.load(opened) as members:
            metadata = json.loads(bytes(members[METADATA]))
            if metadata["format"] != FORMAT:
                raise RunError(f"{path} must have format {FORMAT}, got {metadata['format']}: read it with its version.")
            weights = {name: jax.device_put(members[name]) for name in members.files if name.startswith(WEIGHTS)}
            names = program_names(len(metadata["programs"]))
            programs = [export.deserialize(bytearray(members[name])) for name in names]
    except FileNotFoundError:
        raise RunError(f"There is no file {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path} must be a whole file that `ddf export` wrote, got {error!r}.") from error
    return ExportedModel(metadata, weights, programs)


def program_names(count: int) -> list[str]:
    """The names of so many programs in the file.

    >>> program_names(2)
    ['program', 'program_1']
    """
    return [PROGRAM, *(f"{PROGRAM}_{number}" for number in range(1, count))]


def kinds_of(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Dtypes and shapes of arrays as JSON has them, `{name: {"dtype", "shape"}}`; a symbolic size is a string."""
    return {
        name: {"dtype": str(of.dtype), "shape": [size if isinstance(size, int) else str(size) for size in of.shape]}
        for name, of in arrays.items()
    }


def _fits(arrays: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> bool:
    if arrays.keys() != inputs.keys():
        return False
    for name, array in arrays.items():
        shape = inputs[name]["shape"]
        sizes = zip(array.shape, shape, strict=False)
        if str(array.dtype) != inputs[name]["dtype"] or array.ndim != len(shape):
            return False
        if any(size != expected for size, expected in sizes if isinstance(expected, int)):
            return False
    return True


def _text(inputs: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(f"{name} {kind['dtype']} [{', '.join(map(str, kind['shape']))}]" for name, kind in inputs.items())
