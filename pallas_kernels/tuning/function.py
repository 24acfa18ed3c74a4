"""`autotune`: the fastest configs of the kernels of a function, measured on the GPU in use."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.autotune import Configs, Tuning, requested_kernels, search, use_configs, write_tuned_configs
from pallas_kernels.ops.config import ArgShape, KernelName
from pallas_kernels.ops.device import current_device
from pallas_kernels.tuning.measure import measure_of

DTYPES = {2: "bfloat16", 4: "float32"}  # that are measured, by the bytes of a value


@dataclasses.dataclass(frozen=True)
class TunedConfigs:
    """The fastest configs that `autotune` found, of the kernels that ran at all.

    ``with configs:`` compiles what is called in it with these configs, also what was compiled before. `write` keeps
    them for every later process.

    Args:
      device_kind: the model of the GPU on which they are the fastest.
      tunings: the search of each kernel.
    """

    device_kind: str
    tunings: tuple[Tuning, ...]
    _entered: list[contextlib.AbstractContextManager[None]] = dataclasses.field(
        default_factory=list, repr=False, compare=False
    )

    @property
    def configs(self) -> Configs:
        """By the sizes of a call and the kernel."""
        return {(found.shape, found.kernel): found.best for found in self.tunings if found.failed < len(found.measured)}

    def write(self) -> Path:
        """Adds them to the user's own file of the device model, in `$DDF_JAX_CACHE` if that is set, and returns it."""
        return write_tuned_configs(self.device_kind, self.configs)

    def __enter__(self) -> "TunedConfigs":
        self._entered.append(use_configs(self.configs))
        self._entered[-1].__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)

    def __str__(self) -> str:
        """A line for each kernel: microseconds of the best config and of the heuristic's."""
        lines = []
        for found in self.tunings:
            shape, tried = found.shape, len(found.measured)
            call = (
                f"{shape.batch}x{shape.height}x{shape.width}x{shape.channels} {DTYPES[shape.itemsize]} {found.kernel}"
            )
            if found.failed == tried:
                lines.append(f"{call}: all {tried} configs failed")
                continue
            best, first = 1e6 * found.seconds, 1e6 * found.heuristic_seconds
            lines.append(f"{call}: {best:.1f} µs, the heuristic's config {first:.1f}, {found.failed} of {tried} failed")
        return "\n".join(lines)


def autotune(function: Callable[..., Any], *arguments: Any) -> TunedConfigs:
    """Measures configs of all Triton kernels of a function, such as a training step, on the GPU in use.

    The function is compiled, not run: its kernels are measured one by one, on arrays of the sizes that one device
    has. A config counts only if its values are those of the portable implementation.

    >>> configs = autotune(train_step, state, batch)  # doctest: +SKIP
    >>> print(configs)  # doctest: +SKIP
    128x56x56x64 bfloat16 fwd: 46.3 µs, the heuristic's config 46.3, 0 of 12 failed
    >>> with configs:  # doctest: +SKIP
    ...     state = train_step(state, batch)
    >>> configs.write()  # doctest: +SKIP

    Args:
      function: that calls the operator, jitted or not.
      arguments: arrays, or structs with shapes, dtypes and shardings.

    Raises:
      NotImplementedError: the device in use runs no Triton kernel.
    """
    device = current_device()
    if not device.runs_triton:
        raise NotImplementedError(f"Kernels are tuned on an NVIDIA GPU from Ampere on, here is: {device.kind}.")
    with requested_kernels() as requested:
        lowered = jax.jit(lambda *values: function(*values)).trace(*arguments).lower(lowering_platforms=("cuda",))
        if jax.default_backend() == "gpu":
            lowered.compile()  # programs that XLA splits are lowered for a device as late as that
    kernels: dict[ArgShape, list[KernelName]] = {}
    for shape, kernel in requested:
        kernels.setdefault(shape, []).append(kernel)
    tunings = []
    for shape, names in kernels.items():
        found = search(shape, names, measure_of(_call(shape), DTYPES[shape.itemsize]))
        tunings += [found[name] for name in names]
    return TunedConfigs(device.kind, tuple(tunings))


def _call(shape: ArgShape) -> ArgSpec:
    x = shape.batch, shape.height, shape.width, shape.channels
    return ArgSpec("measured", x, shape.spec, shape.groups if shape.has_spatial else None, shape.has_channel)
