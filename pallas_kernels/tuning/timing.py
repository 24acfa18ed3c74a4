"""The timer of every benchmark, and the compilation of many programs.

A `Program` has its arguments and knows the best clock of its device: `jax_program` makes one of a JAX function,
`torch_peers.torch_program` one of a PyTorch function. `time_programs` measures one, or several that take turns.
"""

import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax

ROUNDS = 20
FILLS_CACHES = 0.3  # seconds; a thousand times what filling them takes
COMPILED_TOGETHER = 16
LAUNCHES = 10  # timed together on a GPU, so that the host's share of a launch is hidden behind the device's

Clock = Literal["device", "events", "host"]
"""`device`: the sum of the kernels' times. `events`: between two marks in the device's queue, gaps between kernels
included. `host`: the host's clock."""
Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = ("forward", "forward_backward")


class Program(NamedTuple):
    """A compiled program with its arguments."""

    run: Callable[[], Any]  # runs once, returns when the results are ready
    seconds: Callable[[], float]  # of one run, by `clock`
    clock: Clock
    peak_bytes: int  # arguments, results and temporaries


def time_programs(programs: Mapping[str, Program], rounds: int) -> dict[str, list[float]]:
    """Seconds of one run of each program in each round.

    The programs take turns, in another order each round, so that other load on the machine slows all of them alike.
    Each runs once more, untimed, before its turn, as the previous program has left its own data in the caches; one that
    takes longer than `FILLS_CACHES` only in the first round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    order, generator = list(programs), random.Random(0)
    for _ in range(rounds):
        generator.shuffle(order)
        for name in order:
            if not seconds[name] or seconds[name][-1] < FILLS_CACHES:
                programs[name].run()
            seconds[name].append(programs[name].seconds())
    return seconds


def jax_program(function: Callable[..., Any], arrays: tuple) -> Program:
    """`function(*arrays)`, compiled."""
    return compiled_program(jax.jit(function).lower(*arrays).compile(), arrays)


def compiled_program(compiled: jax.stages.Compiled, arrays: tuple) -> Program:
    """On a GPU the clock is NVIDIA's profiling interface where it works: a launch takes longer than a small kernel."""

    def run() -> Any:
        return jax.block_until_ready(compiled(*arrays))

    run()
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu:
        from jax.experimental.mosaic.gpu import profiler

        measure: Any = profiler.measure(compiled)  # of one run at a time: it keeps the results of all

        def device_seconds() -> float:
            return 1e-3 * float(measure(*arrays)[1])

        # Without the interface, or where another program holds it, this raises or gives no times.
        with contextlib.suppress(RuntimeError, TypeError):
            device_seconds()
            return Program(run, device_seconds, "device", peak_bytes(compiled))
    launches = LAUNCHES if on_gpu else 1
    return Program(run, lambda: host_seconds(run, lambda: compiled(*arrays), launches), "host", peak_bytes(compiled))


def host_seconds(run: Callable[[], Any], launch: Callable[[], Any], launches: int = 1) -> float:
    """Seconds of one launch by the host's clock: all but the last of `launches` are only enqueued."""
    start = time.perf_counter()
    for _ in range(launches - 1):
        launch()
    run()
    return (time.perf_counter() - start) / launches


def peak_bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments, results and temporaries of a compiled program."""
    memory: Any = compiled.memory_analysis()
    return memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes


def compile_together(lowers: Sequence[Callable[[], jax.stages.Lowered] | None]) -> list[Future[Any]]:
    """The compiled programs, or the errors; None for None. Tracing takes turns, compilation runs in threads.

    What occurs twice is compiled once.
    """

    def submit(lower: Callable[[], jax.stages.Lowered] | None) -> Future[Any]:
        future: Future[Any] = Future()
        if lower is None:
            future.set_result(None)
            return future
        try:
            return pool.submit(lower().compile)
        except Exception as error:
            future.set_exception(error)
            return future

    with ThreadPoolExecutor(COMPILED_TOGETHER) as pool:
        programs = {lower: submit(lower) for lower in dict.fromkeys(lowers)}
        return [programs[lower] for lower in lowers]
