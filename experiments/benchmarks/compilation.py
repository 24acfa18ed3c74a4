"""Times the lowering and the compilation of operator, layers and networks on this machine.

    python -m ddf_jax bench compile

`lower_s` is from the function to StableHLO, tracing included, `compile_s` from there to the program, both without any
cache. `instructions` are those of the optimised program, fused ones included; `program_bytes` its serialised size.
"""

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.benchmarks.layers import LAYERS, SHAPE, lower_layer
from experiments.benchmarks.peers import with_cotangents
from experiments.benchmarks.rows import Row, row_environment
from experiments.benchmarks.training_cpu import PASSES as MODEL_PASSES
from experiments.benchmarks.training_cpu import lower_forward
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels.ops.arg_specs import BENCHMARK, ArgSpec
from pallas_kernels.tuning.timing import PASSES, Pass, peak_bytes

COMPILED_LAYERS = ("depthwise3x3", "ddf", "involution")
MODELS = ("ddf_resnet50", "resnet50")
BATCH, IMAGE_SIZE = 8, 224


class Part(NamedTuple):
    """Something to compile: `lower` traces and lowers it."""

    part: str
    name: str
    shape: str
    which: str
    lower: Callable[[], jax.stages.Lowered]


def measure(parts: "Iterator[Part] | None" = None, *, rounds: int = 3) -> list[Row]:
    """A row for each part: medians of seconds, and sizes."""
    return [
        {"part": part.part, "name": part.name, "shape": part.shape, "dtype": "float32", "pass": part.which}
        | _compile(part.lower, rounds)
        | row_environment("jax", jax.devices()[0].device_kind)
        for part in (all_parts() if parts is None else parts)
    ]


def all_parts() -> Iterator[Part]:
    """The first benchmark of the operator, `COMPILED_LAYERS` and `MODELS`, in each of their passes."""
    arg = BENCHMARK[0]
    for which in PASSES:
        yield Part("operator", "dynamic_filter", arg.name, which, functools.partial(lower_operator, arg, which))
    for name, which in itertools.product(COMPILED_LAYERS, PASSES):
        layer = LAYERS[name](SHAPE[-1], rngs=nnx.Rngs(0))
        shape = "x".join(map(str, SHAPE))
        yield Part("layer", name, shape, which, functools.partial(_lower_layer, layer, which))
    for name in MODELS:
        step = TrainingStep(name, batch=BATCH, image_size=IMAGE_SIZE, dtype="float32")
        shape = "x".join(map(str, step.images))
        for which, lower in zip(MODEL_PASSES, (functools.partial(lower_forward, step), step.lower), strict=True):
            yield Part("model", name, shape, which, lower)


def lower_operator(arg: ArgSpec, which: Pass) -> jax.stages.Lowered:
    """The call by the best implementation that runs here, or it and its cotangents."""
    if which == "forward":
        return jax.jit(arg.call).lower(*arg.structs())
    return jax.jit(with_cotangents(arg.call)).lower(arg.output_struct(), *arg.structs())


def _lower_layer(layer: Any, which: Pass) -> jax.stages.Lowered:
    return lower_layer(layer, SHAPE, which)[0]


def _compile(lower: Callable[[], jax.stages.Lowered], rounds: int) -> Row:
    lower_s, compile_s = [], []
    compiled: Any = None
    for _ in range(rounds):
        jax.clear_caches()
        start = time.perf_counter()
        lowered = lower()
        middle = time.perf_counter()
        compiled = lowered.compile()
        lower_s.append(middle - start)
        compile_s.append(time.perf_counter() - middle)
    return {
        "lower_s": statistics.median(lower_s),
        "compile_s": statistics.median(compile_s),
        "n": rounds,
        "instructions": (compiled.as_text() or "").count(" = "),
        "program_bytes": len(compiled.runtime_executable().serialize()),
        "peak_bytes": peak_bytes(compiled),
    }


def to_table(rows: list[Row]) -> str:
    lines = [
        f"{'part':10}{'name':18}{'pass':18}{'lower, s':>10}{'compile, s':>12}{'instructions':>14}{'program, MiB':>14}"
    ]
    lines += [
        f"{row['part']:10}{row['name']:18}{row['pass']:18}{row['lower_s']:10.2f}{row['compile_s']:12.2f}"
        f"{row['instructions']:14,}{row['program_bytes'] / 2**20:14.2f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"
