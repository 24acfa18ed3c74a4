"""Parts in PyTorch for `turns`. It imports nothing else of this project, so that a Python without JAX can run it."""

# torch is an extra, and the types are checked without it too.
# pyright: reportMissingImports=false

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.turns import Part


def torch_part(run: Callable[[], object], *arguments: object) -> Part:
    """What a function computes, without derivatives.

    Args:
        run: of no arguments.
        *arguments: tensors, modules, and lists of them, that it uses; their memory counts.
    """

    def without_derivatives() -> object:
        with torch.no_grad():
            return run()

    return Part(without_derivatives, lambda: bytes_of(arguments) + allocated_bytes(without_derivatives))


def training_part(model: torch.nn.Module, losses: Callable[[], dict[str, Tensor]], *arguments: object) -> Part:
    """Forward, backward and SGD with momentum of the parameters that are not frozen.

    Args:
        model: in training mode.
        losses: by name; their sum is minimised.
        *arguments: tensors that `losses` uses.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sgd = torch.optim.SGD(trained, 1e-4, momentum=0.9)

    def run() -> None:
        sgd.zero_grad()
        loss = torch.stack(list(losses().values())).sum()
        if not loss.isfinite():
            raise ArithmeticError(f"expected a finite loss, got {loss.item()}")
        loss.backward()
        sgd.step()

    def peak_bytes() -> int:
        momenta = bytes_of(trained)
        return bytes_of([model, *arguments]) + momenta + allocated_bytes(run)

    return Part(run, peak_bytes)


def allocated_bytes(run: Callable[[], object]) -> int:
    """The most CPU memory allocated at a time during a call, by the profiler's record of allocations and releases."""
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


def bytes_of(value: Any) -> int:
    """Of the tensors in modules, lists and tuples."""
    if isinstance(value, torch.nn.Module):
        return sum(tensor.nbytes for tensor in value.state_dict().values())
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0


def channels_first(array: np.ndarray) -> Tensor:
    """[N, H, W, C] to a contiguous [N, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def nms_arrays(inputs: Mapping[str, np.ndarray]) -> dict[str, tuple[Tensor, ...]]:
    """Boxes, scores and groups of each suppression, by the part's name."""
    counts = [name.removeprefix("nms").removesuffix("_boxes") for name in inputs if re.fullmatch(r"nms\d+_boxes", name)]
    kinds = ("boxes", "scores", "groups")
    return {f"nms_{n}": tuple(torch.from_numpy(inputs[f"nms{n}_{kind}"]) for kind in kinds) for n in counts}


def use_all_cores() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
