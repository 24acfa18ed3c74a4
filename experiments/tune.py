"""Finds the fastest cut of each kernel on the GPU at hand, and writes it where the operator looks for it.

    python -m experiments.tune [NAME ...] [--dtypes bfloat16 float32]

The names are calls of `pallas_kernels.dynamic_filter.arg_specs`; by default DDF-ResNet-50's. A cut counts only if it
gives what the heuristic's gives.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.gpu_clock import measure_jax
from pallas_kernels.dynamic_filter import config, device, triton, triton_vjp
from pallas_kernels.dynamic_filter.arg_specs import ARG_SPECS, RESNET50, ArgSpec
from pallas_kernels.dynamic_filter.problem import BlockConfig, Pass, Problem
from pallas_kernels.dynamic_filter.tuner import Measure, tune
from pallas_kernels.dynamic_filter.vjp import Residuals

TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-7, "float16": 2.0**-10}  # of the largest value: sums in another order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[arg.name for arg in RESNET50], metavar="NAME")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"], choices=list(TOLERANCE))
    options = parser.parse_args()
    where = device.current()
    if not where.runs_triton:
        raise SystemExit(f"Kernels are tuned on an NVIDIA GPU from Ampere on, here is: {where.kind}.")
    config.read_measured(where.kind)  # what is there must be fit to be added to
    for arg in (ARG_SPECS[name] for name in options.names):
        for dtype in options.dtypes:
            problem = Problem.of(*arg.structs(dtype), arg.spec)
            for which in ("forward", *config.gradient_passes(problem)):
                measure = measure_of(arg, dtype, which)
                found = tune(problem, which, measure)
                config.write_measured(where.kind, {(problem, which): found.best})  # what is found is kept at once
                gain = measure(config.heuristic(problem, which)) / found.seconds
                print(
                    f"{arg.name} {dtype} {which}: {gain:.2f}× the heuristic's, {found.failed} of {found.tried} failed"
                )


def measure_of(arg: ArgSpec, dtype: str, which: Pass, *, interpret: bool = False) -> Measure:
    """How one kernel of a call is measured.

    Args:
      interpret: on a CPU, for tests.
    """
    x, spatial, channel = jax.device_put(arg.arrays(dtype=dtype))
    inputs, dy = Residuals(x, spatial, channel), jax.device_put(arg.cotangent(dtype=dtype))

    def kernel(cut: BlockConfig) -> Callable[..., Any]:
        def forward(inputs: Residuals, dy: jax.Array) -> jax.Array:
            return triton.forward(*inputs, arg.spec, config=cut, interpret=interpret)

        def cotangent(inputs: Residuals, dy: jax.Array) -> Any:
            gradients = triton_vjp.backward(inputs, dy, arg.spec, configs={which: cut}, interpret=interpret)
            # What is not returned is not computed.
            of_filters = {"spatial": gradients.spatial, "channel": gradients.channel}
            return {"input": gradients.x, **of_filters, "filters": of_filters}[which]

        return forward if which == "forward" else cotangent

    def run(cut: BlockConfig) -> list[np.ndarray]:
        return [np.asarray(leaf).astype(np.float32) for leaf in jax.tree.leaves(jax.jit(kernel(cut))(inputs, dy))]

    expected = run(config.heuristic(Problem.of(*inputs, arg.spec), which))

    def measure(cut: BlockConfig) -> float:
        for found, wanted in zip(run(cut), expected, strict=True):
            error, allowed = np.abs(found - wanted).max(), TOLERANCE[dtype] * np.abs(wanted).max()
            if not error <= allowed:
                raise ArithmeticError(
                    f"expected the heuristic's values within {allowed:.3g}, got an error of {error:.3g}"
                )
        return statistics.median(measure_jax(kernel(cut), (inputs, dy)).seconds)

    return measure


if __name__ == "__main__":
    main()
