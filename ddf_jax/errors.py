"""Errors that a user can mend, in contrast to defects, and what a missing package belongs to."""

import os
import re


class UserError(ValueError):
    """A call, a file or a setting that cannot be used. The message states the rule, what was expected and what was
    given, and what to do; `ddf` prints it in one line, without a traceback."""

    exit_status = 2
    """What `ddf` returns to the shell: 2 is wrong use."""


class RunError(UserError):
    """A run that cannot start, resume or be read."""


class DataError(UserError):
    """An example, a file of data or what reads it failed: mend the data, and the same command resumes."""

    exit_status = 1


class DiskError(RunError):
    """A file or a disk of the run failed: mend it, and the same command resumes."""

    exit_status = 1


class NonFiniteError(RunError):
    """Training met a loss, gradient or parameter that is infinite or not a number."""

    exit_status = 1


class StoppedError(RunError):
    """Ctrl-C or SIGTERM ended the run after a checkpoint; the same command resumes it."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h, "try again": a scheduler can tell a preempted run from a failed one


def one_line(error: BaseException) -> str:
    """The cause that an error of the system or of a library states, in one line.

    >>> one_line(OSError(28, "No space left on device", "metrics.jsonl"))
    'No space left on device (metrics.jsonl)'
    >>> one_line(ValueError("Error writing file.\\n\\nIn addition: …"))
    'Error writing file.'
    >>> one_line(ValueError("ABORTED: Failed to open: file [os_error_code='28'] [tensorstore_spec='…']"))
    "No space left on device (ABORTED: Failed to open: file [os_error_code='28'] [tensorstore_spec='…'])"
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and (code := re.search(r"\[os_error_code='(\d+)'\]", str(error))):  # of TensorStore, behind long names
        return f"{os.strerror(int(code[1]))} ({lines[0][:250]})"
    return lines[0][:300] if lines else type(error).__name__


EXTRAS = {
    **dict.fromkeys(("absl", "grain", "importlib_resources", "matplotlib", "PIL"), "train"),
    **dict.fromkeys(("tensorboardX", "tensorflow_datasets", "tqdm", "tyro"), "train"),
    "h5py": "nyu",
    "mlflow": "mlflow",
    **dict.fromkeys(("multipart", "python_multipart", "starlette", "uvicorn"), "serve"),
    "jax2onnx": "onnx",
    "pycocotools": "detection",
    "tensorflow": "savedmodel",
    "torch": "torch",
    "wandb": "wandb",
}
"""Optional packages, and the extra of this package that brings each."""


def how_to_install(error: ModuleNotFoundError) -> str | None:
    """The command that installs the package that was not found; None if it is of no extra.

    >>> how_to_install(ModuleNotFoundError(name="grain.python"))
    "grain is not installed. Install it with: pip install 'ddf-jax[train]'"
    """
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"{package} is not installed. Install it with: pip install 'ddf-jax[{EXTRAS[package]}]'"
