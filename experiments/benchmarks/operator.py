"""How fast the dynamic filter is on this machine, beside other ways to compute it.

    python -m experiments.benchmarks.operator
    python -m experiments.benchmarks.operator --json --out operator.json operator.csv

Times every implementation that runs here, plain automatic differentiation of the portable one (`xla_autodiff`), and
PyTorch's `unfold` formulation with autograd where PyTorch is installed and JAX computes on the CPU. All cores, float32,
K = 3. The contestants take turns, so that whatever else the machine does meanwhile meets them all alike.

`peak_bytes` is arguments, results and the most that lives beside them: by XLA's own account of the compiled program,
and for PyTorch by its profiler's record of every allocation of one call.
"""

import argparse
import csv
import datetime
import functools
import importlib.util
import io
import itertools
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from ddf_jax.files import write_atomically
from pallas_kernels.ops import xla
from pallas_kernels.ops.api import IMPLEMENTATIONS
from pallas_kernels.ops.arg_specs import BENCHMARK, ArgSpec

Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")
Row = dict[str, Any]


class Program(NamedTuple):
    """A contestant, ready to run."""

    run: Callable[[], object]  # computes once and returns when the results are there
    peak_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--out", type=Path, nargs="+", default=[], metavar="FILE", help="files .json or .csv to write")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (default: %(default)s)")
    options = parser.parse_args(argv)
    for path in options.out:
        if path.suffix not in (".json", ".csv") or not path.parent.is_dir():
            parser.error(f"--out: must be a .json or .csv file in a folder that exists, got {path}")
    rows = measure(BENCHMARK, options.rounds)
    for path in options.out:
        write_atomically(path, to_csv(rows) if path.suffix == ".csv" else to_json(rows))
    print(to_json(rows) if options.json else to_table(rows), end="")
    return 0


def measure(args: Iterable[ArgSpec], rounds: int) -> list[Row]:
    """A row for each contestant, call and pass."""
    contestants, rows = _contestants(), []
    for arg, which in itertools.product(args, PASSES):
        _say(f"{arg.name} {which}")
        programs = {name: build(arg, which) for name, build in contestants.items()}
        for name, seconds in take_turns(programs, rounds).items():
            rows.append(
                {
                    "implementation": name,
                    "shape": arg.name,
                    "dtype": "float32",
                    "kernel_size": arg.spec.kernel_size,
                    "pass": which,
                    "median_ms": 1e3 * statistics.median(seconds),
                    "peak_bytes": programs[name].peak_bytes,
                    "n": rounds,
                    **_environment("torch" if name.startswith("torch") else "jax"),
                }
            )
    return rows


def take_turns(programs: dict[str, Program], rounds: int) -> dict[str, list[float]]:
    """Seconds of one run of each program in each round, in a new order each time: nobody always follows the slowest."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order, shuffle = list(programs), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            programs[name].run()  # the one before has left its own data in the caches
            start = time.perf_counter()
            programs[name].run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def jax_program(function: Callable[..., jax.Array], arg: ArgSpec, which: Pass) -> Program:
    """The function of (x, spatial, channel), or it and its pull-back, compiled."""

    def with_pull_back(dy, *arrays):
        y, pull_back = jax.vjp(function, *arrays)
        return y, pull_back(dy)

    arrays = jax.device_put(arg.arrays())
    if which == "forward_backward":
        program, arrays = with_pull_back, (jax.device_put(arg.cotangent()), *arrays)
    else:
        program = function
    compiled = jax.jit(program).lower(*arrays).compile()
    memory: Any = compiled.memory_analysis()
    peak_bytes = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Program(lambda: jax.block_until_ready(compiled(*arrays)), peak_bytes)


def _contestants() -> dict[str, Callable[[ArgSpec, Pass], Program]]:
    """What can run here, by name; says what cannot and why."""

    def named(implementation: str, arg: ArgSpec, which: Pass) -> Program:
        return jax_program(functools.partial(arg.call, implementation=implementation), arg, which)

    def autodiff(arg: ArgSpec, which: Pass) -> Program:
        return jax_program(functools.partial(xla.forward, spec=arg.spec), arg, which)

    found: dict[str, Callable[[ArgSpec, Pass], Program]] = {}
    for name in IMPLEMENTATIONS:
        try:
            named(name, BENCHMARK[0], "forward")
        except NotImplementedError as error:
            _say(f"without {name}: {error}")
        else:
            found[name] = functools.partial(named, name)
    found["xla_autodiff"] = autodiff
    if importlib.util.find_spec("torch") is None:
        _say("without torch_unfold: PyTorch is not installed (pip install 'ddf-jax[torch]')")
    elif jax.default_backend() != "cpu":
        _say("without torch_unfold: it is timed on CPUs only")
    else:
        from experiments.benchmarks import torch_unfold

        found["torch_unfold"] = lambda arg, which: Program(*torch_unfold.program(arg, which == "forward_backward"))
    return found


def _environment(framework: str) -> Row:
    device = jax.devices()[0].device_kind
    return {
        "device": f"{_processor()}, {os.cpu_count()} cores" if device == "cpu" else device,
        "versions": f"{framework} {version(framework)}, Python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return models[0].partition(": ")[2] if models else platform.processor() or platform.machine()


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def to_json(rows: list[Row]) -> str:
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"


def to_csv(rows: list[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def speedups(rows: list[Row], peer: str, implementation: str, which: Pass) -> dict[str, float]:
    """How many times faster than the peer, by shape."""
    of = {(row["implementation"], row["shape"]): row["median_ms"] for row in rows if row["pass"] == which}
    shapes = dict.fromkeys(shape for _, shape in of)
    return {shape: of[peer, shape] / of[implementation, shape] for shape in shapes}


def to_table(rows: list[Row]) -> str:
    """Milliseconds, times faster than PyTorch (without it: than automatic differentiation), and mebibytes."""
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    peer = "torch_unfold" if "torch_unfold" in names else "xla_autodiff"
    cells = {(row["implementation"], row["shape"], row["pass"]): row for row in rows}
    lines = []
    for which in PASSES:
        lines.append([f"{which}: ms (times faster than {peer}) MiB", *names])
        ratios = {name: speedups(rows, peer, name, which) for name in names}
        for shape in shapes:
            found = [cells[name, shape, which] for name in names]
            texts = [
                f"{row['median_ms']:.2f} ({ratios[row['implementation']][shape]:.1f}×) {row['peak_bytes'] / 2**20:.0f}"
                for row in found
            ]
            lines.append([shape, *texts])
        means = [statistics.geometric_mean(ratios[name].values()) for name in names]
        lines.append(["geometric mean", *(f"{mean:.1f}×" for mean in means)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    return "\n".join("  ".join(line) for line in padded) + "\n"


if __name__ == "__main__":
    sys.exit(main())
