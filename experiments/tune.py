"""Finds the fastest cut of each kernel on the GPU at hand, and writes it where the operator looks for it.

    python -m experiments.tune [NAME ...] [--dtypes bfloat16 float32]

The names are calls of `pallas_kernels.ops.arg_specs`; by default DDF-ResNet-50's. A cut counts only if it
gives what the portable implementation gives.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.gpu_clock import measure_compiled
from pallas_kernels.ops import device, heuristics, xla
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50, ArgSpec
from pallas_kernels.ops.autotune import Measure, tune
from pallas_kernels.ops.config import BlockConfig, Pass, Problem
from pallas_kernels.ops.triton import bwd, fwd
from pallas_kernels.ops.vjp import Gradients, Residuals

TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7, "float16": 2.0**-10}  # of the largest value: sums in another order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[arg.name for arg in RESNET50], metavar="NAME")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"], choices=list(TOLERANCE))
    options = parser.parse_args()
    if unknown := set(options.names) - ARG_SPECS.keys():
        parser.error(f"no calls named {sorted(unknown)}; there are: {', '.join(ARG_SPECS)}")
    where = device.current()
    if not where.runs_triton:
        raise SystemExit(f"Kernels are tuned on an NVIDIA GPU from Ampere on, here is: {where.kind}.")
    heuristics.read_measured(where.kind)  # what is there must be fit to be added to
    for arg in (ARG_SPECS[name] for name in options.names):
        for dtype in options.dtypes:
            problem = Problem.of(*arg.structs(dtype), arg.spec)
            for which in ("forward", *heuristics.gradient_passes(problem)):
                try:
                    found = tune(problem, which, measure_of(arg, dtype, which))
                except RuntimeError as error:  # nothing works: the others go on
                    print(f"{arg.name} {dtype} {which}: {error}", flush=True)
                    continue
                heuristics.write_measured(where.kind, {(problem, which): found.best})  # what is found is kept at once
                print(
                    f"{arg.name} {dtype} {which}: {1e6 * found.seconds:.1f} µs, the heuristic's cut "
                    f"{1e6 * found.heuristic_seconds:.1f}, {found.failed} of {found.tried} failed",
                    flush=True,
                )


def measure_of(arg: ArgSpec, dtype: str, which: Pass, *, interpret: bool = False) -> Measure:
    """How one kernel of a call is measured.

    Args:
      interpret: on a CPU, for tests.
    """
    x, spatial, channel = jax.device_put(arg.arrays(dtype=dtype))
    inputs, dy = Residuals(x, spatial, channel), jax.device_put(arg.cotangent(dtype=dtype))

    def cotangents(which: Pass, gradients: Gradients) -> Any:
        of_filters = {"spatial": gradients.spatial, "channel": gradients.channel}
        return {"input": gradients.x, **of_filters, "filters": of_filters}[which]  # what is not there is not computed

    def kernel(cut: BlockConfig) -> Callable[..., Any]:
        def forward(inputs: Residuals, dy: jax.Array) -> jax.Array:
            return fwd.forward(*inputs, arg.spec, config=cut, interpret=interpret)

        def cotangent(inputs: Residuals, dy: jax.Array) -> Any:
            gradients = bwd.backward(inputs, dy, arg.spec, configs={which: cut}, interpret=interpret)
            return cotangents(which, gradients)

        return forward if which == "forward" else cotangent

    def as_numpy(results: Any) -> list[np.ndarray]:
        return [np.asarray(leaf).astype(np.float32) for leaf in jax.tree.leaves(results)]

    def portable(inputs: Residuals, dy: jax.Array) -> Any:
        y = xla.forward(*inputs, arg.spec)
        return y if which == "forward" else cotangents(which, xla.backward(inputs, dy, arg.spec))

    expected = as_numpy(jax.jit(portable)(inputs, dy))

    def measure(cut: BlockConfig) -> float:
        compiled = jax.jit(kernel(cut)).lower(inputs, dy).compile()
        for found, wanted in zip(as_numpy(compiled(inputs, dy)), expected, strict=True):
            error, allowed = np.abs(found - wanted).max(), TOLERANCE[dtype] * np.abs(wanted).max()
            if not error <= allowed:
                raise ArithmeticError(
                    f"expected the portable implementation's values within {allowed:.3g}, got an error of {error:.3g}"
                )
        return statistics.median(measure_compiled(compiled, (inputs, dy)).seconds)

    return measure


if __name__ == "__main__":
    main()
