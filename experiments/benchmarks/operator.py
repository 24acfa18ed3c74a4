"""Times the dynamic filter on this machine against other ways to compute it.

    python -m experiments.benchmarks.operator
    python -m experiments.benchmarks.operator --json --out operator.json operator.csv

The implementations that run here, automatic differentiation of the portable one (`xla_autodiff`), and, where PyTorch is
installed and JAX computes on the CPU, PyTorch's `unfold` formulation with autograd and, as the static layer that a
network would use, its depthwise convolution. All cores, float32, K = 3. The
programs take turns, so that other load on the machine slows all of them alike.

`peak_bytes` counts arguments, results and temporaries: by XLA's account of the compiled program, for PyTorch by its
profiler's record of every allocation of one call.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax

from ddf_jax.files import write_atomically
from experiments.benchmarks.peers import Function, with_cotangents
from experiments.benchmarks.rows import Row, row_environment, row_key, row_time, to_csv
from pallas_kernels.ops import xla
from pallas_kernels.ops.arg_specs import BENCHMARK, ArgSpec
from pallas_kernels.ops.choice import IMPLEMENTATIONS
from pallas_kernels.tuning.timing import PASSES, Pass, Program, jax_program, time_programs

TORCH_PEERS = ("torch_unfold", "torch_depthwise")
MakeProgram = Callable[[ArgSpec, Pass], Program]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.operator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    parser.add_argument("--out", type=Path, nargs="+", default=[], metavar="FILE", help="files .json or .csv to write")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each program (default: %(default)s)")
    options = parser.parse_args(argv)
    for path in options.out:
        if path.suffix not in (".json", ".csv") or not path.parent.is_dir():
            parser.error(f"--out: must be a .json or .csv file in a folder that exists, got {path}")
    rows = measure(BENCHMARK, options.rounds, _peers_here())
    for path in options.out:
        write_atomically(path, to_csv(rows) if path.suffix == ".csv" else to_json(rows))
    print(to_json(rows) if options.json else to_table(rows), end="")
    return 0


def measure(args: Iterable[ArgSpec], rounds: int, peers: Sequence[str] = ()) -> list[Row]:
    """A row for each implementation, call and pass.

    Args:
        args: the calls.
        rounds: turns of each program.
        peers: of `TORCH_PEERS`.
    """
    implementations, rows = _implementations(peers), []
    for arg, which in itertools.product(args, PASSES):
        _log(f"{arg.name} {which}")
        programs = {name: make(arg, which) for name, make in implementations.items()}
        for name, seconds in time_programs(programs, rounds).items():
            framework = "torch" if name.startswith("torch") else "jax"
            rows.append(
                row_key(name, arg, "float32", which)
                | row_time(seconds, programs[name].clock, programs[name].peak_bytes)
                | row_environment(framework, jax.devices()[0].device_kind)
            )
    return rows


def operator_program(function: Function, arg: ArgSpec, which: Pass, dtype: str = "float32") -> Program:
    """The function of (x, spatial, channel), or it and its cotangents, on the arrays of a call."""
    arrays = jax.device_put(arg.arrays(dtype=dtype))
    if which == "forward":
        return jax_program(function, arrays)
    return jax_program(with_cotangents(function), (jax.device_put(arg.cotangent(dtype=dtype)), *arrays))


def _peers_here() -> Sequence[str]:
    """PyTorch's, or none and a line that states why."""
    if importlib.util.find_spec("torch") is None:
        _log("without torch_unfold: PyTorch is not installed (pip install 'ddf-jax[torch]')")
    elif jax.default_backend() != "cpu":
        _log("without torch_unfold: it is timed on CPUs only")
    else:
        return TORCH_PEERS
    return ()


def _implementations(peers: Sequence[str]) -> dict[str, MakeProgram]:
    """What can run here, by name; logs what cannot and why."""

    def named(implementation: str, arg: ArgSpec, which: Pass) -> Program:
        return operator_program(functools.partial(arg.call, implementation=implementation), arg, which)

    def autodiff(arg: ArgSpec, which: Pass) -> Program:
        return operator_program(functools.partial(xla.forward, spec=arg.spec), arg, which)

    found: dict[str, MakeProgram] = {}
    for implementation in IMPLEMENTATIONS:
        try:
            jax.jit(functools.partial(BENCHMARK[0].call, implementation=implementation)).lower(*BENCHMARK[0].structs())
        except NotImplementedError as error:
            _log(f"without {implementation}: {error}")
        else:
            found[implementation] = functools.partial(named, implementation)
    found["xla_autodiff"] = autodiff
    for peer in peers:
        found[peer] = functools.partial(_torch_program, peer)
    return found


def _torch_program(peer: str, arg: ArgSpec, which: Pass) -> Program:
    from experiments.benchmarks import torch_peers

    inputs, dy = torch_peers.tensors(arg, "float32")
    return torch_peers.torch_program(torch_peers.peer(peer, arg, dy), inputs, dy, which)


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def to_json(rows: Sequence[Row]) -> str:
    return json.dumps(rows, indent=1, allow_nan=False) + "\n"


def speedups(rows: Sequence[Row], peer: str, implementation: str, which: Pass) -> dict[str, float]:
    """How many times faster than the peer, by shape."""
    of = {(row["implementation"], row["shape"]): row["median_ms"] for row in rows if row["pass"] == which}
    shapes = dict.fromkeys(shape for _, shape in of)
    return {shape: of[peer, shape] / of[implementation, shape] for shape in shapes}


def to_table(rows: Sequence[Row]) -> str:
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
