"""PyTorch's ways to compute the operator, or what stands in its place, timed on a GPU: `gpu_suite` runs it.

    python -m experiments.benchmarks.gpu_torch --shapes NAME ...

A process of its own, so that neither JAX nor PyTorch takes the other's memory. Prints a JSON object for each row.
"""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from experiments.benchmarks import gpu_clock
from experiments.benchmarks.gpu_clock import Measured, row_of
from experiments.benchmarks.torch_unfold import dynamic_filter
from pallas_kernels.ops.arg_specs import ARG_SPECS, ArgSpec

Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", required=True, choices=list(ARG_SPECS), metavar="NAME")
    for row in rows([ARG_SPECS[name] for name in parser.parse_args().shapes]):
        print(json.dumps(row), flush=True)
    return 0


def rows(args: Sequence[ArgSpec]) -> Iterator[dict[str, Any]]:
    """Medians of every way, in float32 and bfloat16; one that fails, or does not fit the device, says so."""
    for arg in args:
        for dtype in ("float32", "bfloat16"):
            place = functools.cache(lambda arg=arg, dtype=dtype: tensors(arg, dtype))
            for name in ("torch_unfold", "torch_compiled_unfold", "torch_depthwise"):
                for which in ("forward", "forward_backward"):
                    row = {"implementation": name, "shape": arg.name, "dtype": dtype, "pass": which}
                    row |= {"kernel_size": arg.spec.kernel_size, "torch": torch.__version__}
                    yield row | row_of(functools.partial(_measure_named, name, which, arg, place))
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()


def _measure_named(name: str, which: str, arg: ArgSpec, place: Callable[[], Any]) -> Measured:
    inputs, dy = place()
    return measure(functions(arg, dy)[name], inputs, dy, backward=which != "forward")


def functions(arg: ArgSpec, like: Tensor) -> dict[str, Function]:
    """By name, of x [B, C, H, W], spatial [B, T, Ho, Wo] and channel [B, C, T]; the call has one group and "mul".

    Args:
      like: of the dtype and on the device of x.
    """
    spec, channels = arg.spec, arg.x[3]
    kernel = like.new_full((channels, 1, spec.kernel_size, spec.kernel_size), 1 / spec.taps)

    def unfold(x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        return dynamic_filter(x, spatial, channel, stride=spec.stride, dilation=spec.dilation)

    def depthwise(x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        return functional.conv2d(x, kernel, None, spec.stride, spec.reach, spec.dilation, channels)

    # Its compiler gives up a function of which it has compiled some kinds: each call is to be the first.
    torch._dynamo.reset()
    compiled: Any = torch.compile(unfold, dynamic=False, fullgraph=True)
    return {"torch_unfold": unfold, "torch_compiled_unfold": compiled, "torch_depthwise": depthwise}


def tensors(arg: ArgSpec, dtype: str) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """(x, spatial, channel) and dy, as the official code has them, on the GPU if there is one."""
    x, spatial, channel = arg.arrays()

    def place(array: np.ndarray) -> Tensor:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.tensor(np.ascontiguousarray(array), device=device, dtype=getattr(torch, dtype))

    inputs = (
        place(x.transpose(0, 3, 1, 2)),
        place(spatial[:, :, :, 0, 0].transpose(0, 3, 1, 2)),
        place(channel[:, 0].transpose(0, 2, 1)),
    )
    return inputs, place(arg.cotangent().transpose(0, 3, 1, 2))


def measure(function: Function, arrays: Sequence[Tensor], dy: Tensor, *, backward: bool) -> Measured:
    """Of the function, or of it and the cotangents of all that it depends on; its peak memory on a GPU only."""
    inputs = [value.detach().requires_grad_(backward) for value in arrays]

    def step() -> None:
        y = function(*inputs)  # pyright: ignore[reportCallIssue]  # three
        if backward:
            torch.autograd.grad(y, inputs, dy, allow_unused=True)

    step()
    if dy.device.type == "cpu":
        return Measured(gpu_clock.repeat(step, lambda _: None), 0, "host")
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(gpu_clock.REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(10**7)  # the device waits while the host launches what follows, or the first thousand of it
        start.record()
        for _ in range(gpu_clock.LAUNCHES):
            step()
        end.record()
        end.synchronize()
        seconds.append(1e-3 * start.elapsed_time(end) / gpu_clock.LAUNCHES)
    return Measured(seconds, torch.cuda.max_memory_allocated() - (0 if backward else dy.nbytes), "events")


if __name__ == "__main__":
    sys.exit(main())
