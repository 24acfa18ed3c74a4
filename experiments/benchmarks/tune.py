"""Finds the fastest config of each kernel on the GPU in use, and writes it to the cache folder that the operator reads.

    python -m experiments.tune [NAME ...] [--dtypes bfloat16 float32]
    python -m experiments.tune --rows DIR/rows.jsonl

The names are calls of `pallas_kernels.ARG_SPECS`; by default DDF-ResNet-50's. A config counts only if its values are
those of the portable implementation. With `--rows`, the configs that `experiments.gpu_suite` measured on another
machine are written and nothing is measured.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.checks import UNITS, share_of_tolerance
from experiments.benchmarks.rows import Row, read_rows
from experiments.benchmarks.timing import ROUNDS, compiled_program, time_programs
from pallas_kernels.ops import autotune, xla
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50, ArgSpec
from pallas_kernels.ops.autotune import Measure
from pallas_kernels.ops.config import ArgShape, BlockConfig, KernelName
from pallas_kernels.ops.device import current_device
from pallas_kernels.ops.form import Name
from pallas_kernels.ops.heuristics import backward_kernels
from pallas_kernels.ops.implementation import Operands, cotangents_of
from pallas_kernels.ops.triton import bwd, fwd


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
            for kernel in ("fwd", *backward_kernels(shape)):
                try:
                    found = autotune.autotune(shape, kernel, measure_of(arg, dtype, kernel))
                except RuntimeError as error:  # every config fails: continue with the others
                    print(f"{arg.name} {dtype} {kernel}: {error}", flush=True)
                    continue
                autotune.write_tuned_configs(device.kind, {(shape, kernel): found.best})  # at once: a run may be killed
                print(
                    f"{arg.name} {dtype} {kernel}: {1e6 * found.seconds:.1f} µs, the heuristic's config "
                    f"{1e6 * found.heuristic_seconds:.1f}, {found.failed} of {found.tried} failed",
                    flush=True,
                )
    return 0


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
    arg: ArgSpec, dtype: str, kernel: KernelName, *, interpret: bool = False, rounds: int = ROUNDS
) -> Measure:
    """The measure of one kernel of a call: the seconds of the kernel with a config, the median of the rounds.

    Args:
        arg: the call.
        dtype: of every array.
        kernel: the kernel to time.
        interpret: runs Pallas's interpreter, for tests on a CPU.
        rounds: how often it is timed.

    Raises:
        ArithmeticError: in the measure, where a config's values are not those of the portable implementation.
    """
    x, spatial, channel = jax.device_put(arg.arrays(dtype=dtype))
    operands = Operands(x, jax.device_put(arg.cotangent(dtype=dtype)), spatial, channel)
    names: dict[KernelName, tuple[Name, ...]] = {
        "dx": ("x",),
        "dspatial": ("spatial",),
        "dchannel": ("channel",),
        "dfilters": ("spatial", "channel"),
    }
    results = {name: struct for name, struct in cotangents_of(operands).items() if name in names.get(kernel, ())}

    def with_config(config: BlockConfig) -> Callable[[Operands], Any]:
        def forward(operands: Operands) -> jax.Array:
            x, _, spatial, channel = operands
            assert x is not None
            return fwd.forward(x, spatial, channel, arg.spec, config=config, interpret=interpret)

        def backward(operands: Operands) -> Any:
            return bwd.backward(operands, results, arg.spec, configs={kernel: config}, interpret=interpret)

        return forward if kernel == "fwd" else backward

    def portable(operands: Operands) -> Any:
        if kernel == "fwd":
            x, _, spatial, channel = operands
            assert x is not None
            return xla.forward(x, spatial, channel, arg.spec)
        return xla.backward(operands, results, arg.spec)

    expected = [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(portable)(operands))]

    def measure(config: BlockConfig) -> float:
        compiled = jax.jit(with_config(config)).lower(operands).compile()
        for found, wanted in zip(jax.tree.leaves(compiled(operands)), expected, strict=True):
            share = share_of_tolerance(np.asarray(found), wanted, dtype, roundings=2)
            if not share <= 1:
                raise ArithmeticError(
                    f"expected the portable implementation's values, got an error of {share:.3g} times the allowed one"
                )
        return statistics.median(time_programs({"": compiled_program(compiled, (operands,))}, rounds)[""])

    return measure
