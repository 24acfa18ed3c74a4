"""The kernels of a training step as JAX's profiler measures them, next to the lower bound of each.

A trace names kernels, not instructions. Most run inside command buffers (CUDA graphs), where all that is left of an
instruction is its name in the name of its kernel; a kernel that XLA uses for several has the name of the first. Triton
kernels and the matrix products of libraries have names of their own: they run in the order of the program.

`jax.experimental.mosaic.gpu.profiler` must not be used in the same process: after a trace it ends it.
"""

import collections
import dataclasses
import itertools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddf_jax.files import write_json
from ddf_jax.plan import CATEGORIES, category
from experiments.benchmarks.rows import Row
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels import aot

STEPS = 2
LIBRARY = "library"
"""Category of the kernels of libraries whose instruction cannot be told: memory that is set, copied or padded."""

MATMUL_CALL = "__cublas"
_MATMUL_NAME = re.compile("nvjet|cutlass.*gemm|sm\\d+_xmma_gemm")


class KernelEvent(NamedTuple):
    """One run of a kernel, as traced.

    Args:
        name: of the kernel.
        start_ns: when it started.
        duration_ns: how long it ran.
        hlo_op: the instruction that launched it, or the command buffer that it ran in.
    """

    name: str
    start_ns: float
    duration_ns: float
    hlo_op: str


@dataclasses.dataclass(frozen=True)
class MeasuredKernel:
    """All runs of a kernel in a step.

    Args:
        name: of the kernel.
        category: one of `ddf_jax.plan.CATEGORIES`, or `LIBRARY`.
        launches: how often it runs.
        us: microseconds of all runs.
        num_bytes: that all runs move; None where the instruction cannot be told.
        bound_us: lower bound of `us`, the sum of `Launch.roofline_us`; None where it is not known.
    """

    name: str
    category: str
    launches: float
    us: float
    num_bytes: int | None
    bound_us: float | None


def measure_kernels(compiled: jax.stages.Compiled, step: TrainingStep, folder: Path) -> Row:
    """Traces a few steps: sums by category as a row, every kernel in `folder`/NAME.kernels.json.

    Raises:
        RuntimeError: the trace holds no kernels.
    """
    arrays, _ = step.run(compiled, step.arrays(), steps=1)
    events = kernel_events(lambda: step.run(compiled, arrays, steps=STEPS))
    kind = jax.devices()[0].device_kind
    device = next((device for device in aot.DEVICES.values() if device.name == kind), None)
    kernels = measured_kernels(events, compiled.as_text() or "", steps=STEPS, device=device)
    write_json(folder / f"{step.name}.kernels.json", [dataclasses.asdict(kernel) for kernel in kernels])
    return {"n": STEPS, "kernels": category_sums(kernels), **span(events, steps=STEPS)}


def kernel_events(run: Callable[[], Any]) -> list[KernelEvent]:
    """The kernels that run meanwhile, in the order of their start. On a CPU: the instructions.

    Raises:
        RuntimeError: the trace holds no kernels.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    prefix = "/device:GPU" if jax.default_backend() == "gpu" else "/host:CPU"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the types that the profile's reader makes
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        [file] = Path(folder).rglob("*.xplane.pb")
        planes = [plane for plane in jax.profiler.ProfileData.from_file(str(file)).planes if prefix in plane.name]
        events = [
            KernelEvent(event.name, event.start_ns, event.duration_ns, stats["hlo_op"])
            for line in itertools.chain.from_iterable(plane.lines for plane in planes)
            for event in line.events
            if "hlo_op" in (stats := dict(event.stats))
        ]
    if not events:
        raise RuntimeError(f"Expected the kernels of a step in the trace, got none in its planes {prefix}.")
    return sorted(events, key=lambda event: event.start_ns)


def measured_kernels(
    events: Sequence[KernelEvent], text: str, *, steps: int, device: aot.Device | None
) -> list[MeasuredKernel]:
    """Each kernel of a step, that with the most time above its bound first.

    Args:
        events: the kernels of the steps, in the order of their start.
        text: `compiled.as_text()` of the step.
        steps: how many of them ran.
        device: what they ran on; without it no bound is known.
    """
    launches = aot.launches(text)
    found = list(_launches_of(events, launches, steps))
    # Of a library's instruction with several kernels, the longest does the work.
    time: dict[tuple[str, str], float] = collections.defaultdict(float)
    for event, launch in zip(events, found, strict=True):
        if launch is not None:
            time[launch.name, event.name] += event.duration_ns
    longest = {name: kernel for (name, kernel), _ in sorted(time.items(), key=lambda item: item[1])}
    groups: dict[tuple[str, str], list[tuple[KernelEvent, aot.Launch | None]]] = collections.defaultdict(list)
    for event, launch in zip(events, found, strict=True):
        works = launch if launch is not None and longest[launch.name] == event.name else None
        groups[event.name, LIBRARY if launch is None else category(launch)].append((event, works))
    kernels = [_measured(*key, group, steps, device) for key, group in groups.items()]
    return sorted(kernels, key=lambda kernel: (kernel.bound_us or 0) - kernel.us)


def category_sums(kernels: Iterable[MeasuredKernel]) -> Row:
    """`{category: {launches, ms, bound_ms}}` of each category that has kernels, and of all."""
    table: Row = {name: {"launches": 0.0, "ms": 0.0, "bound_ms": 0.0} for name in (*CATEGORIES, LIBRARY, "total")}
    for kernel in kernels:
        for row in (table[kernel.category], table["total"]):
            row["launches"] += kernel.launches
            row["ms"] += 1e-3 * kernel.us
            row["bound_ms"] += 1e-3 * (kernel.bound_us or 0)
    return {
        name: {"launches": round(row["launches"], 1), "ms": round(row["ms"], 4), "bound_ms": round(row["bound_ms"], 4)}
        for name, row in table.items()
        if row["launches"]
    }


def span(events: Sequence[KernelEvent], *, steps: int) -> Row:
    """Milliseconds from the first kernel of a step to that of the next, and the share in which none runs."""
    start = end = events[0].start_ns
    busy = 0.0
    for event in events:
        finished = event.start_ns + event.duration_ns
        busy += max(0.0, finished - max(end, event.start_ns))
        end = max(end, finished)
    return {"span_ms": round(1e-6 * (end - start) / steps, 4), "idle_share": round(1 - busy / (end - start), 4)}


def _measured(
    name: str,
    kind: str,
    group: Sequence[tuple[KernelEvent, aot.Launch | None]],
    steps: int,
    device: aot.Device | None,
) -> MeasuredKernel:
    known = [launch for _, launch in group if launch is not None]
    bound = sum(launch.roofline_us(device) for launch in known) / steps if known and device else None
    return MeasuredKernel(
        name=name,
        category=kind,
        launches=round(len(group) / steps, 2),
        us=round(1e-3 * sum(event.duration_ns for event, _ in group) / steps, 3),
        num_bytes=sum(launch.num_bytes for launch in known) // steps if known else None,
        bound_us=None if bound is None else round(bound, 3),
    )


def _launches_of(
    events: Sequence[KernelEvent], launches: Sequence[aot.Launch], steps: int
) -> Iterator[aot.Launch | None]:
    """The instruction of each event: by its own name, that of the kernel, or the order of the program."""
    named = {launch.name: launch for launch in launches}
    kernels = {re.sub(r"[.-]", "_", launch.name): launch for launch in reversed(launches)}
    direct = {event.hlo_op for event in events}
    queues: Mapping[str, list[aot.Launch]] = collections.defaultdict(list)
    for launch in launches:
        if launch.name not in direct:
            queues[MATMUL_CALL if launch.kind.startswith(MATMUL_CALL) else launch.triton_name].append(launch)

    def queue_of(event: KernelEvent) -> str | None:
        if event.hlo_op in named or event.name in kernels:
            return None
        return MATMUL_CALL if _MATMUL_NAME.search(event.name) else re.sub(r"__\d+$", "", event.name)

    counts = collections.Counter(map(queue_of, events))
    in_order = {name: itertools.cycle(queue) for name, queue in queues.items() if counts[name] == steps * len(queue)}
    for event in events:
        name = queue_of(event)
        if name is None:
            yield named.get(event.hlo_op) or kernels[event.name]
        else:
            yield next(in_order[name]) if name in in_order else None
