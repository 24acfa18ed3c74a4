"""Finds the fastest config of each kernel on the GPU in use, and writes it to the cache folder that the operator reads.

    python -m experiments.tune [NAME ...] [--dtypes bfloat16 float32]
    python -m experiments.tune --rows DIR/rows.jsonl

The names are calls of `pallas_kernels.ARG_SPECS`; by default DDF-ResNet-50's. A config counts only if its values are
those of the portable implementation. With `--rows`, the configs that `experiments.gpu_suite` measured on another
machine are written and nothing is measured.
"""

import argparse
import functools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmarks.checks import UNITS, error_share
from experiments.benchmarks.rows import Row, read_rows
from experiments.benchmarks.timing import compile_together, compiled_program, time_programs
from pallas_kernels.ops import autotune, xla
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50, ArgSpec
from pallas_kernels.ops.autotune import Candidate, Measure
from pallas_kernels.ops.config import ArgShape, BlockConfig, KernelName
from pallas_kernels.ops.device import current_device
from pallas_kernels.ops.form import Name
from pallas_kernels.ops.heuristics import backward_kernels
from pallas_kernels.ops.implementation import Operands, cotangents_of
from pallas_kernels.ops.triton import bwd, fwd

CANDIDATE_ROUNDS = 5
RESULTS: dict[KernelName, tuple[Name, ...]] = {
    "dx": ("x",),
    "dspatial": ("spatial",),
    "dchannel": ("channel",),
    "dfilters": ("spatial", "channel"),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[arg.name for arg in RESNET50], metavar="NAME")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"], choices=list(UNITS))
    parser.add_argument("--rows", type=Path, metavar="FILE", help="rows of the GPU suite to take the configs from")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - ARG_SPECS.keys():
        parser.error(f"no calls named {sorted(unknown)}; there are: {', '.join(ARG_SPECS)}")
    if options.rows:
        return write_tuned_rows(options.rows)
    device = current_device()
    if not device.runs_triton:
        raise SystemExit(f"Kernels are tuned on an NVIDIA GPU from Ampere on, here is: {device.kind}.")
    autotune.read_tuned_configs(autotune.cache_folder(), device.kind)  # an unusable file fails now, not at the end
    for arg in (ARG_SPECS[name] for name in options.names):
        for dtype in options.dtypes:
            shape = ArgShape.of(*arg.structs(dtype), arg.spec)
            kernels = kernels_of(shape)
            found = autotune.autotune(shape, kernels, measure_of(arg, dtype))
            for kernel in kernels:
                tuning = found[kernel]
                try:
                    best = tuning.best
                except RuntimeError as error:  # every config fails: continue with the others
                    print(f"{arg.name} {dtype} {kernel}: {error}", flush=True)
                    continue
                autotune.write_tuned_configs(device.kind, {(shape, kernel): best})  # at once: a run may be killed
                print(
                    f"{arg.name} {dtype} {kernel}: {1e6 * tuning.seconds:.1f} µs, the heuristic's config "
                    f"{1e6 * tuning.heuristic_seconds:.1f}, {tuning.failed} of {len(tuning.measured)} failed",
                    flush=True,
                )
    return 0


def kernels_of(shape: ArgShape) -> tuple[KernelName, ...]:
    """The kernels of a call, forward and backward."""
    return "fwd", *backward_kernels(shape)


def write_tuned_rows(path: Path) -> int:
    """Writes the configs among the rows of a GPU suite to the cache folder that the operator reads."""
    found: dict[str, list[Row]] = {}
    for row in read_rows(path):
        if "tuned" in row:
            found.setdefault(row["device"], []).append(row["tuned"])
    for kind, entries in found.items():
        with tempfile.TemporaryDirectory() as folder:  # for the file's own checks
            autotune.tuned_file(Path(folder), kind).write_text(json.dumps(entries))
            configs = autotune.read_tuned_configs(Path(folder), kind)
        print(f"{len(configs)} configs for {kind}: {autotune.write_tuned_configs(kind, configs)}")
    return 0 if found else 1


def measure_of(
    arg: ArgSpec,
    dtype: str,
    *,
    interpret: bool = False,
    rounds: int = CANDIDATE_ROUNDS,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Measure:
    """The measure of the kernels of a call: of each candidate the median of the rounds.

    An `ArithmeticError` stands for a candidate whose values are not those of the portable implementation, a
    `TimeoutError` for one that was not reached.

    Args:
        arg: the call.
        dtype: of every array.
        interpret: runs Pallas's interpreter, for tests on a CPU.
        rounds: how often each is timed.
        out_of_time: whether to stop.
    """
    x, spatial, channel = jax.device_put(arg.arrays(dtype=dtype))
    operands = Operands(x, jax.device_put(arg.cotangent(dtype=dtype)), spatial, channel)
    cotangents = cotangents_of(operands)

    def lower(kernel: KernelName, config: BlockConfig) -> jax.stages.Lowered:
        if out_of_time():
            raise TimeoutError
        results = {name: struct for name, struct in cotangents.items() if name in RESULTS.get(kernel, ())}

        def run(operands: Operands) -> dict[Any, jax.Array]:
            if kernel == "fwd":
                x, _, spatial, channel = operands
                assert x is not None
                return {"y": fwd.forward(x, spatial, channel, arg.spec, config=config, interpret=interpret)}
            return bwd.backward(operands, results, arg.spec, configs={kernel: config}, interpret=interpret)

        return jax.jit(run).lower(operands)

    def portable(operands: Operands) -> dict[Any, jax.Array]:
        x, _, spatial, channel = operands
        assert x is not None
        y = xla.forward(x, spatial, channel, arg.spec)
        return {"y": y, **xla.backward(operands, cotangents, arg.spec)}

    @jax.jit
    def share(found: jax.Array, expected: jax.Array) -> jax.Array:
        return error_share(found.astype(jnp.float32), expected.astype(jnp.float32), dtype, roundings=2)

    def seconds(compiled: jax.stages.Compiled, expected: Mapping[Any, jax.Array]) -> float:
        if out_of_time():
            raise TimeoutError
        for name, found in compiled(operands).items():
            worst = float(share(found, expected[name]))
            if not worst <= 1:
                raise ArithmeticError(
                    f"expected the portable implementation's values, got an error of {worst:.3g} times the allowed one"
                )
        return statistics.median(time_programs({"": compiled_program(compiled, (operands,))}, rounds)[""])

    def measure(candidates: Sequence[Candidate]) -> Iterator[float | Exception]:
        for program in compile_together([functools.partial(lower, *candidate) for candidate in candidates]):
            try:
                yield seconds(program.result(), expected.result())
            except Exception as error:
                yield error

    pool = ThreadPoolExecutor(1)
    expected = pool.submit(jax.jit(portable), operands)
    pool.shutdown(wait=False)
    return measure
