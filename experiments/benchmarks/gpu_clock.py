"""Time and memory of a program on the device that it runs on."""

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

REPEATS = 20
LAUNCHES = 10  # timed together, so that the host's part of a launch is hidden behind the device's

Function = Callable[..., Any]


class Measured(NamedTuple):
    """What was found of one program."""

    seconds: list[float]  # of each repeat
    peak_bytes: int
    # "device": the time of its kernels alone; "events": between two marks on the device, with the gaps between kernels;
    # "host": many launches by the host's clock.
    clock: str


def row_of(measure: Callable[[], Measured]) -> dict[str, Any]:
    """What a table of times says of one measurement; of one that fails, or does not fit the device, why."""
    try:
        seconds, peak_bytes, clock = measure()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    median = 1e3 * statistics.median(seconds)
    return {"median_ms": median, "repeats": len(seconds), "peak_bytes": peak_bytes, "clock": clock}


def measure_jax(function: Function, arrays: tuple) -> Measured:
    """Of a function of JAX arrays, compiled here."""
    return measure_compiled(jax.jit(function).lower(*arrays).compile(), arrays)


def measure_compiled(compiled: jax.stages.Compiled, arrays: tuple) -> Measured:
    """Its peak memory is that of arguments, results and temporaries together.

    Where NVIDIA's profiling interface is at hand it counts the time: the host's part of a launch takes longer than a
    small kernel.
    """
    memory: Any = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    jax.block_until_ready(compiled(*arrays))
    if jax.default_backend() == "gpu":
        from jax.experimental.mosaic.gpu import profiler

        # The interface may not be installed, or another program may have it: then it raises, or gives no times.
        with contextlib.suppress(RuntimeError, TypeError):
            measure: Any = profiler.measure(compiled)  # one run at a time: it keeps the results of all
            return Measured([1e-3 * float(measure(*arrays)[1]) for _ in range(REPEATS)], peak, "device")
    return Measured(repeat(lambda: compiled(*arrays), jax.block_until_ready), peak, "host")


def repeat(launch: Callable[[], Any], wait: Callable[[Any], Any]) -> list[float]:
    """Seconds of a launch by the host's clock, `LAUNCHES` of them timed together."""
    for _ in range(3):
        wait(launch())
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(LAUNCHES - 1):
            launch()
        wait(launch())
        seconds.append((time.perf_counter() - start) / LAUNCHES)
    return seconds
