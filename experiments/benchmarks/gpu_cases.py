"""The cases of the GPU suite: what is checked, timed and tuned, the most important first."""

import dataclasses
import functools
import importlib.util
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.benchmarks import attention
from experiments.benchmarks import checks as kernel_checks
from experiments.benchmarks.peers import (
    MOSAIC,
    Function,
    computes,
    depthwise,
    named_call,
    unfold,
    with_cotangents,
)
from experiments.benchmarks.rows import Row, row_key, row_time
from experiments.benchmarks.step_kernels import measure_kernels
from experiments.benchmarks.training_step import TrainingStep
from experiments.benchmarks.tune import kernels_of
from pallas_kernels import compat
from pallas_kernels.aot.table import ROW_KERNELS
from pallas_kernels.ops.arg_specs import FPN_LEVELS, POSTER, RESNET50, ArgSpec
from pallas_kernels.ops.autotune import SEPARATE_KERNELS, Candidate, Tuning, search
from pallas_kernels.ops.choice import GPU_KERNELS
from pallas_kernels.ops.config import ArgShape, KernelName
from pallas_kernels.ops.heuristics import heuristic_config
from pallas_kernels.ops.spec import FilterSpec
from pallas_kernels.tuning.measure import CANDIDATE_ROUNDS, UNITS, measure_of
from pallas_kernels.tuning.timing import PASSES, ROUNDS, Pass, compiled_program, time_programs

INTERPRETED = "triton_interpreted"
TINY = ArgSpec("tiny", (1, 3, 4, 4), FilterSpec(1))  # of a dry run: interpreted, more taps take long to compile
# The stages of ResNet-50, the first block of one of them, and Table 2 of the DDF paper.
STAGES = tuple(arg for arg in RESNET50 if arg.spec.stride == (1, 1)) + RESNET50[1:2]
QUICK = (STAGES[0], FPN_LEVELS[0], *STAGES[1:])
TIMED = {arg.name: arg for arg in (*QUICK, *POSTER, *RESNET50)}
STEPS = ("ddf_resnet50", "resnet50")
TINY_MODEL = {"blocks": (1,), "width": 8, "num_classes": 10}


@dataclasses.dataclass(frozen=True)
class Options:
    """What a call of the suite asks for.

    Args:
        shapes: names of the calls to time; none for the default.
        implementations: to check and to time; none for the default.
        quick: only what matters most.
        dry_run: tiny shapes and interpreted kernels, on the CPU.
        deadline: when to stop, in seconds since the epoch.
        folder: for what does not fit a row.
    """

    shapes: tuple[str, ...] = ()
    implementations: tuple[str, ...] = ()
    quick: bool = False
    dry_run: bool = False
    deadline: float = math.inf
    folder: str = "."

    def out_of_time(self) -> bool:
        return time.time() >= self.deadline

    @property
    def rounds(self) -> int:
        return 2 if self.dry_run else ROUNDS

    @property
    def triton(self) -> str:
        return INTERPRETED if self.dry_run else "triton"

    def args(self) -> tuple[ArgSpec, ...]:
        """The calls to time."""
        if self.dry_run:
            return (TINY,)
        return tuple(TIMED[name] for name in self.shapes) or (QUICK if self.quick else tuple(TIMED.values()))

    def chosen_implementations(self) -> tuple[str, ...]:
        kernels = GPU_KERNELS if self.dry_run or compat.no_mosaic_gpu() else (*GPU_KERNELS, MOSAIC)
        names = self.implementations or (kernels if self.quick else (*kernels, "xla"))
        return tuple(self.triton if name == "triton" else name for name in names)


class Case(NamedTuple):
    """One row of the suite.

    `lower` traces a program, which is compiled together with others; `measure` gets it compiled and gives the rest of
    the row.
    """

    key: Row
    measure: Callable[[Any], Row]
    lower: Callable[[], jax.stages.Lowered] | None = None


def checks(options: Options) -> Iterator[Case]:
    """Value and cotangents of every kernel against float64, with NaN behind every array; then those of attention."""
    args = (TINY,) if options.dry_run else kernel_checks.CHECKED
    dtypes = ("float32", "bfloat16") if options.quick else tuple(UNITS)
    for dtype, name, arg in itertools.product(dtypes, options.chosen_implementations(), args):
        if not computes(name, arg, dtype):
            continue

        def lower(arg: ArgSpec = arg, name: str = name, dtype: str = dtype) -> jax.stages.Lowered:
            function = with_cotangents(named_call(arg, name))
            dy = jax.ShapeDtypeStruct(arg.output_shape(), jnp.dtype(dtype))
            with kernel_checks.poisoned():
                return jax.jit(function).lower(dy, *arg.structs(dtype))

        measure = functools.partial(kernel_checks.check, arg=arg, dtype=dtype)
        yield Case(row_key(name, arg, dtype, "forward_backward"), measure, lower)
    name = options.triton
    pairs = [("float32", attention.TINY)] if options.dry_run else itertools.product(dtypes, attention.CHECKED)
    for dtype, call in pairs:
        measure = functools.partial(call.check, dtype=dtype)
        yield Case(call.key(name, dtype), measure, functools.partial(call.lower, name, dtype))


def timings(options: Options) -> Iterator[Case]:
    """The copy bandwidth, then the kernels and their peers in JAX."""
    yield _copy_case(options)
    for arg, dtype in itertools.product(options.args(), _dtypes(options)):
        structs, dy = arg.structs(dtype), jax.ShapeDtypeStruct(arg.output_shape(), jnp.dtype(dtype))
        for (name, function), which in itertools.product(_functions(arg, dtype, options).items(), PASSES):

            def lower(function: Function = function, which: Pass = which, structs=structs, dy=dy):
                if which == "forward":
                    return jax.jit(function).lower(*structs)
                return jax.jit(with_cotangents(function)).lower(dy, *structs)

            def measure(compiled: Any, arg: ArgSpec = arg, dtype: str = dtype, which: Pass = which) -> Row:
                dy, *inputs = _arrays(arg, dtype)
                arrays = tuple(inputs) if which == "forward" else (dy, *inputs)
                return _timed(compiled, arrays, options) | {"minimum_bytes": _minimum_bytes(arg, dtype, which)}

            yield Case(row_key(name, arg, dtype, which), measure, lower)
    yield from _attention_cases(options)


def steps(options: Options) -> Iterator[Case]:
    """Training steps of whole networks; then the kernels of each, whose trace may cost the process."""
    batch, size, model_options = (2, 32, TINY_MODEL) if options.dry_run else (128, 224, {})
    rounds, launches = (2, 1) if options.dry_run else (5, 5)
    kernels = []
    for name in STEPS:
        step = TrainingStep(name, batch=batch, image_size=size, dtype="bfloat16", options=model_options)
        key = {"implementation": name, "shape": f"{batch}x{size}x{size}x3", "dtype": "bfloat16"}
        measure = functools.partial(step.measure, rounds=rounds, steps=launches)
        yield Case(key | {"pass": "training_step"}, measure, step.lower)
        measure = functools.partial(measure_kernels, step=step, folder=Path(options.folder))
        kernels.append(Case(key | {"pass": "training_step_kernels"}, measure, step.lower))
    yield from kernels


def torch(options: Options) -> Iterator[Case]:
    """The peers in PyTorch; none without it."""
    if importlib.util.find_spec("torch") is None:
        return
    from experiments.benchmarks import torch_peers

    names = ("torch_depthwise", "torch_compiled_unfold", *(() if options.quick else ("torch_unfold",)))
    args = options.args()[:2] if options.quick and not options.shapes else options.args()
    for arg, dtype, name, which in itertools.product(args, _dtypes(options), names, PASSES):

        def measure(_: Any, arg: ArgSpec = arg, dtype: str = dtype, name: str = name, which: Pass = which) -> Row:
            inputs, dy = torch_peers.tensors(arg, dtype)
            program = torch_peers.torch_program(torch_peers.peer(name, arg, dy), inputs, dy, which)
            seconds = time_programs({name: program}, options.rounds)[name]
            row = row_time(seconds, program.clock, program.peak_bytes)
            return row | {"minimum_bytes": _minimum_bytes(arg, dtype, which)}

        yield Case(row_key(name, arg, dtype, which), measure)


def tune(options: Options) -> Iterator[Case]:
    """The search for a faster config of each kernel. `experiments.tune --rows` puts the winners to use."""
    for arg, dtype in itertools.product(options.args(), _dtypes(options)):
        kernels = kernels_of(ArgShape.of(*arg.structs(dtype), arg.spec))
        search = functools.cache(functools.partial(_search, arg, dtype, kernels, options))
        for kernel in kernels:

            def measure(
                _: Any, search: Callable[[], Mapping[KernelName, Tuning]] = search, kernel: KernelName = kernel
            ) -> Row:
                return _tuned(search(), kernel, options)

            key = row_key(options.triton, arg, dtype, "forward" if kernel == "fwd" else "forward_backward")
            yield Case(key | {"kernel": ROW_KERNELS[kernel]}, measure)


def _search(arg: ArgSpec, dtype: str, kernels: Sequence[KernelName], options: Options) -> Mapping[KernelName, Tuning]:
    """The search of all kernels of a call together."""
    shape = ArgShape.of(*arg.structs(dtype), arg.spec)
    rounds = options.rounds if options.dry_run else CANDIDATE_ROUNDS
    measure = measure_of(arg, dtype, interpret=options.dry_run, rounds=rounds, out_of_time=options.out_of_time)

    def measure_heuristic(candidates: Sequence[Candidate]) -> Iterator[float | Exception]:
        for kernel, config in candidates:
            known = config == heuristic_config(shape, kernel)
            yield from measure([(kernel, config)]) if known else [TimeoutError("a dry run")]

    return search(shape, kernels, measure_heuristic if options.dry_run else measure)


def _tuned(found: Mapping[KernelName, Tuning], kernel: KernelName, options: Options) -> Row:
    """The best config and the times of all; an error in addition where time ran out before the last candidate."""
    tuning = found[kernel]
    row = {
        "tuned": {
            "kernel": kernel,
            "shape": dataclasses.asdict(tuning.shape),
            "config": dataclasses.asdict(tuning.best),
        },
        "median_ms": 1e3 * tuning.seconds,
        "heuristic_ms": _ms(tuning.heuristic_seconds),
        "candidates": len(tuning.measured),
        "measured": len(tuning.measured) - tuning.failed,
        "candidates_ms": {
            f"{config.tile_h}x{config.tile_w}, {config.num_warps} warps": _ms(seconds)
            for config, seconds in tuning.measured.items()
        },
    }
    if kernel == "dfilters":
        row["separate_ms"] = _ms(sum(found[other].heuristic_seconds for other in SEPARATE_KERNELS))
    return row | ({"error": "TimeoutError: not all candidates were measured"} if options.out_of_time() else {})


def _ms(seconds: float) -> float | None:
    """Milliseconds; None for NaN."""
    return None if math.isnan(seconds) else 1e3 * seconds


def _attention_cases(options: Options) -> Iterator[Case]:
    """The fused kernel of attention, and the composition that it replaces."""
    call, name = attention.TINY if options.dry_run else attention.TIMED, options.triton
    for dtype, composed in itertools.product(_dtypes(options), (False, True)):

        def measure(compiled: Any, dtype: str = dtype) -> Row:
            return _timed(compiled, tuple(call.arrays(dtype)), options)

        lower = functools.partial(call.lower, name, dtype, composed)
        yield Case(call.key(f"{name}_composed" if composed else name, dtype), measure, lower)


def _copy_case(options: Options) -> Case:
    """Adding one to an array that no cache holds: bytes read and written."""
    array = jax.ShapeDtypeStruct((2**10 if options.dry_run else 2**28,), jnp.float32)

    def measure(compiled: Any) -> Row:
        row = _timed(compiled, (jnp.zeros(array.shape, array.dtype),), options)
        return row | {"bytes_per_second": 2 * array.size * array.dtype.itemsize / (1e-3 * row["median_ms"])}

    key = {"implementation": "copy", "shape": str(array.size), "dtype": "float32", "pass": "forward"}
    return Case(key, measure, lambda: jax.jit(lambda a: a + 1).lower(array))


def _functions(arg: ArgSpec, dtype: str, options: Options) -> dict[str, Function]:
    """Everything in JAX that is timed on a call, by name."""
    functions: dict[str, Function] = {
        name: named_call(arg, name) for name in options.chosen_implementations() if computes(name, arg, dtype)
    }
    functions["xla_depthwise"] = lambda x, spatial, channel: depthwise(arg.spec, x)
    functions["xla_unfold"] = functools.partial(unfold, arg.spec)
    return functions


def _dtypes(options: Options) -> tuple[str, ...]:
    return ("bfloat16",) if options.quick else ("bfloat16", "float32")


def _timed(compiled: Any, arrays: tuple[jax.Array, ...], options: Options) -> Row:
    program = compiled_program(compiled, arrays)
    return row_time(time_programs({"": program}, options.rounds)[""], program.clock, program.peak_bytes)


@functools.lru_cache(maxsize=1)  # the cases of a call follow each other
def _arrays(arg: ArgSpec, dtype: str) -> tuple[jax.Array, ...]:
    return jax.device_put((arg.cotangent(dtype=dtype), *arg.arrays(dtype=dtype)))


def _minimum_bytes(arg: ArgSpec, dtype: str, which: Pass) -> int:
    """Forward: the inputs and y once. Backward in addition: the inputs and dy again, and the cotangents."""
    inputs = sum(math.prod(shape) for shape in arg.shapes() if shape is not None)
    output = math.prod(arg.output_shape())
    elements = inputs + output if which == "forward" else 3 * inputs + 2 * output
    return elements * jnp.dtype(dtype).itemsize
