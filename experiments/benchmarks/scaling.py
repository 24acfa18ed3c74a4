"""Times the operator at growing sizes and fits exponents of cost: time ∝ size^exponent, along one size at a time.

    python -m ddf_jax bench scaling

By Table 1 of the DDF paper the operator multiplies and adds B·H·W·C·K² times, whatever the number of groups, so the
exponents of its time are those of `THEORY` where arithmetic takes the time. The sizes are chosen for that: arrays of
1.6 to 13 MB of float32, large enough that a launch costs little and small enough for the caches of a processor.

An exponent is the slope of the least squares line through the logarithms. `operations` are those of the compiled
program by XLA's count. Where time grows unlike them, the rate of operations changes with the size; it is listed too.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmarks import peers
from experiments.benchmarks.rows import Row, row_environment, row_key, row_time
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.tuning.timing import PASSES, Pass, Program, compiled_program, time_programs

TOLERANCE = 0.1
BEST = "best"  # the implementation that runs here without being named
COMPARED = ("K", "H·W")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of a call of the operator."""

    B: int = 8
    S: int = 40  # height and width
    C: int = 64
    K: int = 3
    G: int = 1

    def arg(self) -> ArgSpec:
        name = f"{self.B}x{self.S}x{self.S}x{self.C}_k{self.K}_g{self.G}"
        return ArgSpec(name, (self.B, self.S, self.S, self.C), FilterSpec(self.K), groups=self.G)


AXES: Mapping[str, Sequence[Sizes]] = {
    "K": [Sizes(K=size) for size in (3, 5, 7, 9)],
    "C": [Sizes(C=size) for size in (32, 64, 128, 256)],
    "H·W": [Sizes(S=size) for size in (28, 40, 56, 80)],
    "B": [Sizes(B=size) for size in (4, 8, 16, 32)],
    "groups": [Sizes(C=128, G=size) for size in (2, 4, 8, 16)],  # one group has a program of its own
}
THEORY: Mapping[str, float] = {"K": 2, "C": 1, "H·W": 1, "B": 1, "groups": 0}


class Exponent(NamedTuple):
    """How a cost grows along an axis.

    Args:
        axis: of `AXES`.
        which: forward or forward_backward.
        low, high: the smallest and the largest size.
        theory: the exponent of the multiplications and additions.
        time: that of the median times.
        error: its standard error, from the distances to the line.
        operations: the exponent of the compiled program's operations.
        memory: that of arguments, results and temporaries.
        rates: operations a second at the smallest and the largest size, in 10⁹.
    """

    axis: str
    which: str
    low: float
    high: float
    theory: float
    time: float
    error: float
    operations: float
    memory: float
    rates: tuple[float, float]

    @property
    def as_expected(self) -> bool:
        return abs(self.time - self.theory) <= TOLERANCE


def measure(axes: Mapping[str, Sequence[Sizes]] = AXES, *, rounds: int = 15) -> list[Row]:
    """A row for each size, implementation and pass; those of an axis take turns.

    Along `COMPARED` there are also the operator as unfold and a product, and a depthwise convolution.
    """
    rows = []
    for which, axis in itertools.product(PASSES, axes):
        names = (BEST, "unfold", "depthwise") if axis in COMPARED else (BEST,)
        calls = {f"{name} {point.arg().name}": (name, point) for name in names for point in axes[axis]}
        made = {key: _program(name, point.arg(), which) for key, (name, point) in calls.items()}
        seconds = time_programs({key: program for key, (program, _) in made.items()}, rounds)
        for key, (name, point) in calls.items():
            program, operations = made[key]
            rows.append(
                row_key(name, point.arg(), "float32", which)
                | {"axis": axis, "size": _size(axis, point)}
                | row_time(seconds[key], program.clock, program.peak_bytes)
                | {"operations": operations}
                | row_environment("jax", jax.devices()[0].device_kind)
            )
    return rows


def exponents(rows: Sequence[Row]) -> Iterator[Exponent]:
    """Of the operator, one for each axis and pass of the rows, whose values may be strings as in a file."""
    rows = [row for row in rows if row["implementation"] == BEST]
    for which, axis in dict.fromkeys((row["pass"], row["axis"]) for row in rows):
        of_it = [row for row in rows if (row["pass"], row["axis"]) == (which, axis)]
        size, ms, operations, memory = (
            np.array([float(row[name]) for row in of_it]) for name in ("size", "median_ms", "operations", "peak_bytes")
        )
        rate = operations / ms / 1e6
        time, error = slope(size, ms)
        yield Exponent(
            axis,
            which,
            size[0],
            size[-1],
            THEORY[axis],
            time,
            error,
            slope(size, operations)[0],
            slope(size, memory)[0],
            (rate[0], rate[-1]),
        )


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """That of the least squares line through the logarithms, and its standard error.

    >>> slope(np.array([1.0, 2.0, 4.0]), np.array([3.0, 12.0, 48.0]))
    (2.0, 0.0)
    """
    u, v = np.log(x) - np.log(x).mean(), np.log(y) - np.log(y).mean()
    found = (u @ v) / (u @ u)
    error = np.sqrt(np.sum((v - found * u) ** 2) / max(len(x) - 2, 1) / (u @ u))
    return round(float(found), 6), round(float(error), 6)


def to_table(rows: Sequence[Row]) -> str:
    lines = [f"{'':8}{'pass':18}{'range':>14}{'theory':>8}{'time':>16}{'operations':>12}{'memory':>8}   note"]
    for found in exponents(rows):
        lines.append(
            f"{found.axis:8}{found.which:18}{f'{found.low:g} to {found.high:g}':>14}{found.theory:8g}"
            f"{f'{found.time:.2f} ± {found.error:.2f}':>16}{found.operations:12.2f}{found.memory:8.2f}   {note(found)}"
        )
    return "\n".join(lines) + "\n"


def note(found: Exponent) -> str:
    """Why the time does not grow as theory has it, or nothing where it does."""
    if found.as_expected:
        return ""
    low, high = found.rates
    change = "falls" if high < low else "rises"
    return f"the rate {change} from {low:.1f} to {high:.1f} G operations/s"


def _size(axis: str, point: Sizes) -> int:
    return {"K": point.K, "C": point.C, "H·W": point.S**2, "B": point.B, "groups": point.G}[axis]


def _program(name: str, arg: ArgSpec, which: Pass) -> tuple[Program, float | None]:
    """The call by an implementation, and the number of its operations; None where it calls a library."""
    function: peers.Function = arg.call
    arrays = arg.arrays()
    if name == "unfold":
        function = functools.partial(peers.unfold, arg.spec)
    elif name == "depthwise":
        function, arrays = functools.partial(peers.depthwise, arg.spec), arrays[:1]
    if which == "forward_backward":
        function, arrays = peers.with_cotangents(function), (arg.cotangent(), *arrays)
    arrays = jax.device_put(arrays)
    compiled = jax.jit(function).lower(*arrays).compile()
    return compiled_program(compiled, arrays), (compiled.cost_analysis() or {}).get("flops")
