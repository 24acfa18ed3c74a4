"""The form of every measured row.

A row is a JSON object: what was run (`row_key`), what was measured (`row_time`, or `row_error`), and on which device
(`row_environment`).
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.tuning.timing import Clock, Pass

Row = dict[str, Any]


def row_key(implementation: str, arg: ArgSpec, dtype: str, which: Pass) -> Row:
    """What was run."""
    return {
        "implementation": implementation,
        "shape": arg.name,
        "dtype": dtype,
        "kernel_size": arg.spec.kernel_size[0],
        "pass": which,
    }


def row_time(seconds: Sequence[float], clock: Clock, peak_bytes: int) -> Row:
    """The median, how many runs it is of, and the memory of one run."""
    median_ms = 1e3 * statistics.median(seconds)
    return {"median_ms": median_ms, "peak_bytes": peak_bytes, "n": len(seconds), "clock": clock}


def row_error(error: BaseException) -> Row:
    """In place of a measurement: why there is none."""
    return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def row_environment(framework: str, device: str) -> Row:
    """Device, versions and date of what ran in this process.

    Args:
        framework: the package that ran, "jax" or "torch".
        device: its name of the device, as for `row_machine`.
    """
    return row_machine(device, f"{framework} {version(framework)}, Python {platform.python_version()}")


def row_machine(device: str, versions: str) -> Row:
    """Device, versions and date.

    Args:
        device: the framework's name of the device; "cpu" becomes the processor's name and its number of cores.
        versions: of what ran; an accelerator's driver is added.
    """
    if device == "cpu":
        device = f"{_processor()}, {os.cpu_count()} cores"
    else:
        versions += f", driver {_driver()}"
    return {"device": device, "versions": versions, "date": datetime.date.today().isoformat()}


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `append_row` wrote; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append_row(path: Path, row: Row) -> None:
    """Adds a row as a line of JSON, on disk when this returns."""
    with open(path, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Removes what a crash left of a last line."""
    if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return models[0].partition(": ")[2] if models else platform.processor() or platform.machine()
