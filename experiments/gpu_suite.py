"""Everything that only a GPU can show, by one command: are the kernels right there, and how fast are they.

    python -m experiments.gpu_suite --out DIR [--shapes NAME ...] [--implementations NAME ...]

Values and gradients are compared with the float64 reference on odd sizes, twice, bit by bit; for the kernels with NaN
behind every array, so that a read right behind one shows. Then forward, and forward with backward, are timed on the
device against other ways to compute the same, PyTorch's first and where it is installed. It writes `DIR/checks.json`
and `DIR/timings.json`, each row as soon as it is known, and exits with 1 where a check failed.
"""

import argparse
import contextlib
import datetime
import functools
import importlib.util
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.gpu_clock import Function, Measured, measure_jax, row_of
from experiments.benchmarks.gpu_peers import depthwise, unfold
from pallas_kernels.ops import reference
from pallas_kernels.ops.arg_specs import FPN_LEVELS, POSTER, RESNET50, ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.ops.triton import bwd, fwd
from pallas_kernels.ops.vjp import Residuals

TIMED = {
    arg.name: arg for arg in (FPN_LEVELS[0], *POSTER, *RESNET50)
}  # the paper's Table 2, the poster's, a network's stages
CHECKED = (
    ArgSpec("odd", (3, 33, 31, 72)),
    # Large enough for one kernel of both filters.
    ArgSpec("both", (9, 25, 31, 128)),
    ArgSpec("both_stride", (9, 27, 30, 128), FilterSpec(3, stride=2), groups=2),
    ArgSpec("both_add", (24, 14, 13, 60), FilterSpec(3, combine="add")),
    ArgSpec("groups", (2, 29, 35, 96), FilterSpec(7), groups=6, channel=False),
    ArgSpec("stride", (2, 27, 30, 40), FilterSpec(3, stride=2), groups=5),
    ArgSpec("dilation_add", (2, 19, 23, 24), FilterSpec(5, dilation=3, combine="add")),
    ArgSpec("depthwise", (2, 17, 15, 136), groups=None),
    ArgSpec("upsample", (2, 13, 17, 48), FilterSpec(3, scale=2), groups=2),
    ArgSpec("carafe", (2, 13, 17, 64), FilterSpec(5, scale=2), channel=False),
    ArgSpec("kernel_15", (1, 20, 21, 16), FilterSpec(15)),
)
UNITS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--shapes", nargs="*", default=list(TIMED), choices=list(TIMED))
    parser.add_argument("--implementations", nargs="*", default=["triton", "xla"])
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # until its own turn JAX leaves memory to torch
    config: Any = jax.config
    if config.jax_platforms and "cpu" not in config.jax_platforms.split(","):
        jax.config.update("jax_platforms", f"{config.jax_platforms},cpu")  # for the reference
    options.out.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
        written = []
        for row in rows:  # a row is on disk as soon as it is measured
            print(json.dumps(row), flush=True)
            written.append(row)
            (options.out / name).write_text(json.dumps(written, indent=1) + "\n")
        return written

    checks = write("checks.json", check_rows(options.implementations))
    shapes = [TIMED[name] for name in options.shapes]
    write("timings.json", timing_rows(shapes, options.implementations, torch_rows(options.shapes)))
    return 0 if all(row["passed"] for row in checks) else 1


def check_rows(implementations: list[str], args: tuple[ArgSpec, ...] = CHECKED) -> Iterator[dict[str, Any]]:
    """Value and gradients of every call and dtype: each within half a unit of its dtype and what float32 sums lose."""
    for arg in args:
        for dtype in UNITS:
            arrays, dy = arg.arrays(dtype=dtype), arg.cotangent(dtype=dtype)
            expected = _reference(arg, arrays, dy)
            for name in implementations:
                row: dict[str, Any] = {"implementation": name, "shape": arg.name, "dtype": dtype}
                run = jax.jit(_with_gradients(lambda *a, arg=arg, name=name: arg.call(*a, implementation=name)))
                try:
                    with poisoned():
                        first, second = jax.device_get(run(arrays, dy)), jax.device_get(run(arrays, dy))
                except Exception as error:  # the others go on
                    yield {**row, "error": f"{type(error).__name__}: {str(error)[:200]}", "passed": False}
                    continue
                worst = max(_error(a, b, dtype) for a, b in zip(first, expected, strict=True) if b is not None)
                same = all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True) if a is not None)
                row |= {"worst_share_of_tolerance": worst, "same_bits_twice": same}
                yield {**row, "passed": same and worst <= 1}


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Within it the kernels find a row of NaN behind each of their inputs."""

    def pixel_rows(*arrays):
        return tuple(
            None if a is None else jnp.concatenate([a, jnp.full((1, a.shape[1]), jnp.nan, a.dtype)])
            for a in original(*arrays)
        )

    original = fwd.pixel_rows
    with mock.patch.object(fwd, "pixel_rows", pixel_rows), mock.patch.object(bwd, "pixel_rows", pixel_rows):
        yield


def torch_rows(shapes: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of PyTorch's ways, measured in a process of their own; none without torch, and why where it fails."""
    if importlib.util.find_spec("torch") is None or not shapes:
        return
    command = [sys.executable, "-m", "experiments.benchmarks.gpu_torch", "--shapes", *shapes]
    with subprocess.Popen(command, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            if line.startswith("{"):  # and not a word of its compiler's
                yield json.loads(line)
    if run.returncode != 0:
        yield {"implementation": "torch", "error": f"{' '.join(command[1:3])} ended with {run.returncode}"}


def timing_rows(
    args: list[ArgSpec], implementations: list[str], measured: Iterable[dict[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Medians of every implementation and peer, and the share of the copy bandwidth measured in the same run.

    Args:
      measured: rows of other programs on these calls, that come first and get their share and what is common to all.
    """
    common = environment()
    bandwidth = copy_bandwidth()
    by_name = {arg.name: arg for arg in args}
    for row in itertools.chain(measured, _jax_rows(args, implementations)):
        if "median_ms" in row:
            ideal = _minimum_bytes(by_name[row["shape"]], row["dtype"], row["pass"]) / bandwidth
            row |= {"share_of_copy_bandwidth": 1e3 * ideal / row["median_ms"], "copy_bandwidth": bandwidth}
        yield {**row, **common}


def _jax_rows(args: list[ArgSpec], implementations: list[str]) -> Iterator[dict[str, Any]]:
    for arg in args:
        for dtype in ("float32", "bfloat16"):
            place = functools.cache(lambda arg=arg, dtype=dtype: _placed(arg, dtype))
            for name, function in _functions(arg, implementations).items():
                for which in ("forward", "forward_backward"):
                    row: dict[str, Any] = {"implementation": name, "shape": arg.name, "dtype": dtype, "pass": which}
                    row["kernel_size"] = arg.spec.kernel_size
                    yield row | row_of(functools.partial(_measure, function, which, place))


def _placed(arg: ArgSpec, dtype: str) -> tuple[tuple, jax.Array]:
    return jax.device_put((arg.arrays(dtype=dtype), arg.cotangent(dtype=dtype)))


def _measure(function: Function, which: str, place: Callable[[], tuple[tuple, jax.Array]]) -> Measured:
    arrays, dy = place()
    return measure_jax(function, arrays) if which == "forward" else measure_jax(_with_gradients(function), (arrays, dy))


def environment() -> dict[str, str]:
    """Where and with what the rows were measured."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    except (OSError, subprocess.CalledProcessError):
        driver = "none"
    return {
        "device": jax.devices()[0].device_kind,
        "driver": driver,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def copy_bandwidth(elements: int = 2**28) -> float:
    """Bytes per second, read and written, of adding one to an array that no cache holds."""
    elements = elements if jax.default_backend() == "gpu" else 2**20
    array = jnp.zeros(elements, jnp.float32)
    return 2 * array.nbytes / statistics.median(measure_jax(lambda a: a + 1, (array,)).seconds)


def _functions(arg: ArgSpec, implementations: list[str]) -> dict[str, Function]:
    """Everything in JAX that is timed on a call, by name."""
    functions: dict[str, Function] = {
        name: (lambda *a, name=name: arg.call(*a, implementation=name)) for name in implementations
    }
    functions["xla_unfold"] = lambda *a: unfold(arg.spec, *a)
    functions["xla_depthwise"] = lambda x, spatial, channel: depthwise(x, arg.spec)
    return functions


def _with_gradients(function: Function) -> Function:
    """(arrays, dy) -> (y, dx, dspatial, dchannel)."""

    def run(arrays, dy):
        y, pull = jax.vjp(function, *arrays)
        return y, *pull(dy)

    return run


def _reference(arg: ArgSpec, arrays: tuple, dy: np.ndarray) -> tuple:
    """In float64, on the CPU."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        x, spatial, channel = (None if array is None else jnp.asarray(array.astype(np.float64)) for array in arrays)
        assert x is not None
        y = reference.forward(x, spatial, channel, arg.spec)
        gradients = reference.backward(Residuals(x, spatial, channel), jnp.asarray(dy.astype(np.float64)), arg.spec)
        return jax.device_get((y, *gradients))


def _error(actual: np.ndarray, expected: np.ndarray, dtype: str) -> float:
    """The largest error as a share of what is allowed: half a unit in the last place, and 1e-5 of the largest value."""
    allowed = UNITS[dtype] / 2 * np.abs(expected) + 1e-5 * np.abs(expected).max()
    error = np.abs(actual.astype(np.float64) - expected) / allowed
    return float(np.nan_to_num(error, nan=np.inf).max())


def _minimum_bytes(arg: ArgSpec, dtype: str, direction: str) -> int:
    """Forward: inputs and y once. Backward besides: the inputs and dy again, and the cotangents."""
    inputs = sum(math.prod(shape) for shape in arg.shapes() if shape is not None)
    output = math.prod(arg.output_shape())
    elements = inputs + output if direction == "forward" else 3 * inputs + 2 * output
    return elements * jnp.dtype(dtype).itemsize


if __name__ == "__main__":
    sys.exit(main())
