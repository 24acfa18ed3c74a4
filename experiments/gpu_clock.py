"""Time and memory of a program on the device that it runs on."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

REPEATS = 20
LAUNCHES = 10  # timed together, so that the host's part of a launch is hidden behind the device's

Function = Callable[..., Any]


class Measured(NamedTuple):
    """What was found of one program."""

    seconds: list[float]  # of each repeat
    peak_bytes: int
    clock: str  # "device": the time of its kernels alone; "host": many launches by the host's clock


def measure_jax(function: Function, arrays: tuple) -> Measured:
    """Its peak memory is that of arguments, results and temporaries together.

    Where NVIDIA's profiling interface is at hand it counts the time: the host's part of a launch takes longer than a
    small kernel.
    """
    compiled = jax.jit(function).lower(*arrays).compile()
    memory: Any = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    jax.block_until_ready(compiled(*arrays))
    if jax.default_backend() == "gpu":
        from jax.experimental.mosaic.gpu import profiler

        with contextlib.suppress(RuntimeError):  # the interface is not installed, or another program has it
            milliseconds: Any = profiler.measure(compiled, iterations=REPEATS)(*arrays)[1]
            return Measured([1e-3 * float(each) for each in milliseconds], peak, "device")
    return Measured(_repeat(lambda: compiled(*arrays), jax.block_until_ready), peak, "host")


def measure_torch(function: Function, arrays: Sequence[Any], *, backward: bool = False) -> Measured:
    """Of a function of torch tensors, with the gradients of all of them or without; its peak memory on a GPU only."""
    import torch  # pyright: ignore[reportMissingImports]  # optional

    inputs = [value.clone().requires_grad_(backward) for value in arrays]

    def step() -> None:
        y = function(*inputs)
        if backward:
            torch.autograd.grad(y.sum(), inputs, allow_unused=True)

    step()
    if inputs[0].device.type == "cpu":
        return Measured(_repeat(step, lambda _: None), 0, "host")
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(10**7)  # the device waits until the host has launched all that follows
        start.record()
        for _ in range(LAUNCHES):
            step()
        end.record()
        end.synchronize()
        seconds.append(1e-3 * start.elapsed_time(end) / LAUNCHES)
    return Measured(seconds, torch.cuda.max_memory_allocated(), "device")


def _repeat(launch: Callable[[], Any], wait: Callable[[Any], Any]) -> list[float]:
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
