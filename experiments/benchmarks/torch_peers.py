"""Baselines of the kernels in PyTorch, in PyTorch's layout, and the programs that time them."""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ddf_jax import torch_port
from ddf_jax.torch_port.dcd import DCD
from ddf_jax.torch_port.odconv import ODConv
from experiments.benchmarks.torch_parts import allocated_bytes
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.tuning.timing import LAUNCHES, Pass, Program, host_seconds

TorchFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""x [B, C, H, W], spatial [B, T, Ho, Wo], channel [B, C, T] to y [B, C, Ho, Wo]."""

LAYERS: dict[str, Callable[[int], torch.nn.Module]] = {
    "conv3x3": lambda channels: torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    "depthwise3x3": lambda channels: torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
    "ddf": torch_port.DDF,
    "involution": torch_port.Involution,
    "odconv": lambda channels: ODConv(channels, channels, 3),
    "dcd": lambda channels: DCD(channels, channels, 3),
    "ddf_up": torch_port.DDFUp,
    "carafe": torch_port.CARAFE,
}
"""PyTorch's layers and the port's by the names of `experiments.benchmarks.layers`."""


def unfold(x: Tensor, spatial: Tensor, channel: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    """The operator as PyTorch users write it, for one group and "mul": a product with the columns of `unfold`."""
    kernel_size = round(channel.shape[2] ** 0.5)
    padding = dilation * (kernel_size // 2)
    columns = functional.unfold(x, kernel_size, dilation=dilation, padding=padding, stride=stride)
    columns = columns.view(*x.shape[:2], -1, *spatial.shape[2:])
    return (columns * spatial[:, None] * channel[..., None, None]).sum(2)


def peer(name: str, arg: ArgSpec, like: Tensor) -> TorchFunction:
    """`torch_unfold`, `torch_compiled_unfold` or `torch_depthwise` for a call with one group and "mul".

    Args:
        like: of the dtype and on the device of x.

    Raises:
        ValueError: `name` is none of these.
    """
    spec, channels = arg.spec, arg.x[3]

    def as_unfold(x: Tensor, spatial: Tensor, channel: Tensor) -> Tensor:
        return unfold(x, spatial, channel, stride=spec.stride[0], dilation=spec.dilation[0])

    if name == "torch_unfold":
        return as_unfold
    if name == "torch_compiled_unfold":
        torch._dynamo.reset()  # its compiler gives up on a function that it has compiled for several shapes
        backend = "inductor" if like.is_cuda else "eager"  # for a CPU, where nobody times it, compiling takes a minute
        compiled: Any = torch.compile(as_unfold, dynamic=False, fullgraph=True, backend=backend)
        return compiled
    if name != "torch_depthwise":
        raise ValueError(f"`name` must be torch_unfold, torch_compiled_unfold or torch_depthwise, got {name!r}.")
    kernel = like.new_full((channels, 1, *spec.kernel_size), 1 / spec.taps)
    padding = spec.origin
    return lambda x, spatial, channel: functional.conv2d(x, kernel, None, spec.stride, padding, spec.dilation, channels)


def tensors(arg: ArgSpec, dtype: str) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """(x, spatial, channel) and dy in PyTorch's layout, on the GPU if there is one."""
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


def torch_program(function: TorchFunction, inputs: Sequence[Tensor], dy: Tensor, which: Pass) -> Program:
    """The function, or it and the cotangents of the inputs it depends on."""
    torch.set_num_threads(os.cpu_count() or 1)
    backward = which == "forward_backward"
    leaves = [value.detach().requires_grad_(backward) for value in inputs]

    def run() -> tuple[Tensor | None, ...]:
        y = function(*leaves)  # pyright: ignore[reportCallIssue]  # three
        return (y, *torch.autograd.grad(y, leaves, dy, allow_unused=True)) if backward else (y,)

    run()  # compiles
    if dy.device.type == "cpu":
        arguments = sum(tensor.nbytes for tensor in (*leaves, *([dy] if backward else [])))
        return Program(run, lambda: host_seconds(run, run), "host", arguments + allocated_bytes(run))
    torch.cuda.reset_peak_memory_stats()
    run()
    peak = torch.cuda.max_memory_allocated() - (0 if backward else dy.nbytes)
    return Program(run, lambda: _event_seconds(run), "events", peak)


def layer_program(name: str, shape: Sequence[int], which: Pass) -> Program:
    """A layer of `LAYERS` on a CPU, or it and the cotangents of its input and parameters.

    Args:
        name: of the layer.
        shape: [B, H, W, C] of the input.
        which: in evaluation mode, or in training mode with cotangents.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    batch, height, width, channels = shape
    backward = which == "forward_backward"
    layer = LAYERS[name](channels).train(backward)
    x = torch.randn(batch, channels, height, width, requires_grad=backward)
    leaves = [x, *layer.parameters()]

    def run() -> None:
        with torch.set_grad_enabled(backward):
            y = layer(x)
            if backward:
                torch.autograd.grad(y, leaves, torch.ones_like(y))

    run()
    arguments = sum(tensor.nbytes for tensor in leaves)
    return Program(run, lambda: host_seconds(run, run), "host", arguments + allocated_bytes(run))


def has_timm_model(name: str) -> bool:
    import timm

    return timm.is_model(name)


def timm_model(name: str) -> torch.nn.Module:
    """timm's network of this name, randomly initialised."""
    import timm

    return timm.create_model(name)


def network_programs(step: TrainingStep, create: Callable[[str], Any] = torch_port.create) -> tuple[Program, Program]:
    """The forward pass of a network in evaluation mode, and its training step, on a CPU.

    Args:
        step: whose model's name and images they have.
        create: makes the network of a name: the port's, or `timm_model`.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    model = create(step.name)
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True)
    batch, height, width, channels = step.images
    images, labels = torch.randn(batch, channels, height, width), torch.randint(0, 10, (batch,))

    def forward() -> None:
        model.eval()
        with torch.no_grad():
            model(images)

    def train() -> None:
        model.train()
        sgd.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        sgd.step()

    train()  # allocates gradients and momenta
    state = sum(value.nbytes for value in model.state_dict().values()) + images.nbytes
    momenta = sum(value.nbytes for value in model.parameters())

    def program(run: Callable[[], None], arguments: int) -> Program:
        return Program(run, lambda: host_seconds(run, run), "host", arguments + allocated_bytes(run))

    return program(forward, state), program(train, state + momenta)


def _event_seconds(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(10**7)  # the device waits while the host enqueues the launches
    start.record()
    for _ in range(LAUNCHES):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * start.elapsed_time(end) / LAUNCHES
