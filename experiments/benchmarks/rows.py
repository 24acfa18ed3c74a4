"""The form of every measured row.

A row is a JSON object: what was run (`row_key`), what was measured (`row_time`, or `row_error`), and on which device
(`row_environment`).
"""

import csv
import datetime
import io
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddf_jax.files import write_atomically
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.tuning.timing import Clock, Pass

Row = dict[str, Any]

LOAD_AT_START = round(os.getloadavg()[0], 2)
"""Processes that ran here in the last minute, when this one began."""


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
    """The median, the distance of the quartiles, how many runs they are of, and the memory of one run."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
    times = {"median_ms": 1e3 * median, "peak_bytes": peak_bytes, "n": len(seconds), "clock": clock}
    return times | {"quartile_distance_ms": 1e3 * (high - low)}


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
    """Device, versions, date, and the load of the machine when this process began.

    Args:
        device: the framework's name of the device; "cpu" becomes the processor's name and its number of cores.
        versions: of what ran; an accelerator's driver is added.
    """
    if device == "cpu":
        device = f"{_processor()}, {os.cpu_count()} cores"
    else:
        versions += f", driver {_driver()}"
    return {"device": device, "versions": versions, "date": datetime.date.today().isoformat()} | {
        "load_average": LOAD_AT_START
    }


def to_csv(rows: Sequence[Row]) -> str:
    """A line for each row under the names of all columns; a cell is empty where a row has no such value."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def append_csv(path: Path, rows: Sequence[Row]) -> None:
    """Adds rows to a file that `to_csv` made, or makes it; after a crash it is the old one or the new one."""
    old = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    write_atomically(path, to_csv([*old, *rows]))


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
