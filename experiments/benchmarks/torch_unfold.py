"""The dynamic filter as PyTorch users write it: a product with the columns of `unfold`, and autograd."""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pallas_kernels.ops.arg_specs import ArgSpec


def program(arg: ArgSpec, backward: bool) -> tuple[Callable[[], Any], int]:
    """A function that computes the call once, in PyTorch's own layout, and the peak of the bytes it needs.

    The call has stride and scale 1, one group and both filters.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    x, spatial, channel = arg.arrays()
    leaves = (
        _tensor(x.transpose(0, 3, 1, 2)),  # [B, C, H, W]
        _tensor(spatial[:, :, :, 0, 0].transpose(0, 3, 1, 2)),  # [B, T, H, W]
        _tensor(channel[:, 0].transpose(0, 2, 1)),  # [B, C, T]
    )
    for leaf in leaves:
        leaf.requires_grad_()
    dy = _tensor(arg.cotangent().transpose(0, 3, 1, 2))

    def forward() -> Tensor:
        with torch.no_grad():
            return dynamic_filter(*leaves)

    def forward_backward() -> tuple[Tensor, ...]:
        y = dynamic_filter(*leaves)
        return y, *torch.autograd.grad(y, leaves, dy)

    run, arguments = (forward_backward, (*leaves, dy)) if backward else (forward, leaves)
    return run, sum(tensor.nbytes for tensor in arguments) + allocated_bytes(run)


def dynamic_filter(x: Tensor, spatial: Tensor, channel: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """x [B, C, H, W], spatial [B, T, Ho, Wo], channel [B, C, T]: one group, "mul"."""
    kernel_size = round(channel.shape[2] ** 0.5)
    padding = dilation * (kernel_size // 2)
    columns = functional.unfold(x, kernel_size, dilation=dilation, padding=padding, stride=stride)
    columns = columns.view(*x.shape[:2], -1, *spatial.shape[2:])
    return (columns * spatial[:, None] * channel[..., None, None]).sum(2)


def allocated_bytes(run: Callable[[], object]) -> int:
    """The most that is allocated at a time during a call, by the profiler's record of each allocation and release."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        peak = max(peak, now)
    return peak


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
