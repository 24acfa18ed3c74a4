"""The time of kernel configs on the GPU in use, of those that compute the right values."""

import functools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.autotune import Candidate, Measure
from pallas_kernels.ops.config import BlockConfig, KernelName
from pallas_kernels.ops.form import Name
from pallas_kernels.ops.implementation import Operands, cotangents_of
from pallas_kernels.tuning.timing import compile_together, compiled_program, time_programs

CANDIDATE_ROUNDS = 5
RESULTS: dict[KernelName, tuple[Name, ...]] = {
    "dx": ("x",),
    "dspatial": ("spatial",),
    "dchannel": ("channel",),
    "dfilters": ("spatial", "channel"),
}
UNITS = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}  # in the last place of 1
LOST_IN_SUMS = 1e-5  # of the largest value, by float32 sums in another order


def error_share(actual: Any, expected: Any, dtype: str, roundings: int = 1) -> Any:
    """The largest error as a share of the allowed one, of arrays of NumPy or JAX.

    Allowed are half a unit in the last place for each rounding to `dtype`, and what float32 sums lose.
    """
    allowed = roundings * UNITS[dtype] / 2 * abs(expected) + LOST_IN_SUMS * abs(expected).max()
    return (abs(actual - expected) / allowed).max()


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
    from pallas_kernels.ops import xla  # implementations, which nothing imports before their use
    from pallas_kernels.ops.triton import bwd, fwd

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
