"""Compiling for a GPU that is not there: what a kernel or a whole sharded program will need, as facts and not as hopes.

Two ways, which need different packages and neither a GPU nor CUDA:

* `devices` makes compile-only devices of JAX's CUDA plugin (``jax-cuda13-plugin`` and ``jax-cuda13-pjrt`` of jax's own
  version). A program lowered for a mesh of them compiles to its collectives, memory and kernels: `summary`.
* `triton_kernels` takes the Triton kernels out of a lowered program, and `resources` compiles one with the public
  ``triton`` package to the machine code whose registers, spills and instructions it counts.
"""

import dataclasses
import importlib.util
import os
import re
import subprocess
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

TRITON_CALL = "__gpu$xla.gpu.triton"
COLLECTIVES = ("all_gather", "all_reduce", "all_to_all", "collective_permute", "reduce_scatter")


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU model, as NVIDIA's data sheets give it."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    clock: float  # Hz, boost
    bandwidth: float  # bytes per second, peak; of an H200's 4.8e12 a copy was measured to take 4.3e12
    memory: int  # bytes
    shared_memory: int  # bytes per multiprocessor
    l2_cache: int  # bytes

    @property
    def instructions(self) -> float:
        """Instructions of one lane per second: 128 lanes per multiprocessor and clock."""
        return self.multiprocessors * self.clock * 128


DEVICES = {
    "h200": Device("NVIDIA H200", (9, 0), 132, 1.98e9, 4.8e12, 141 * 10**9, 233472, 50 * 2**20),
    "h100": Device("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98e9, 3.35e12, 80 * 10**9, 233472, 50 * 2**20),
    "a100": Device("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41e9, 2.039e12, 80 * 10**9, 167936, 40 * 2**20),
}


def devices(device: Device, count: int) -> Sequence[Any]:
    """Compile-only devices for `jax.make_mesh`. Lower with `jax.ShapeDtypeStruct`s that are sharded over that mesh.

    To be called before anything else in the process uses JAX: the plugin reads the environment as it starts.

    Raises:
      NotImplementedError: JAX's CUDA plugin is not installed.
    """
    if importlib.util.find_spec("jax_cuda13_plugin") is None:
        version = jax.__version__
        raise NotImplementedError(
            "Compiling a program for a GPU that is not there needs JAX's CUDA plugin: "
            f"pip install jax-cuda13-plugin=={version} jax-cuda13-pjrt=={version}"
        )
    from jax.experimental import topologies

    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # the libraries it checks for are not used
    # Nothing can be timed on a GPU that is not there, and unless timed, XLA's own matrix products may find no tiles.
    flags = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="compile_only", topology=f"1x1x{count}", target_config=_target_config(device)
    )
    return topology.devices


def summary(compiled: jax.stages.Compiled) -> dict[str, dict[str, int]]:
    """Collectives by kind, bytes per device and kernels by kind of a compiled program."""
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if text is None or memory is None:
        raise NotImplementedError("This backend of JAX does not say what it compiled.")
    collectives = {kind: len(re.findall(rf" {kind.replace('_', '-')}(?:-start)?\(", text)) for kind in COLLECTIVES}
    kernels = Counter(re.findall(r' custom-call\(.*custom_call_target="([^"]+)"', text))
    kernels["fusion"] = len(re.findall(r" fusion\(", text))
    return {
        "collectives": collectives,
        "bytes_per_device": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
        },
        "kernels": dict(sorted(kernels.items())),
    }


@dataclasses.dataclass(frozen=True)
class TritonKernel:
    """A kernel as it stands in a lowered program."""

    name: str
    code: str  # Triton IR
    warps: int
    stages: int
    programs: int


def one_device(device: Device) -> Any:
    """A context in which calls are traced as for this device."""
    cores = device.multiprocessors
    abstract = jax.sharding.AbstractDevice(device_kind=device.name, num_cores=cores, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=abstract))


def lower(function: Callable[..., Any], *arguments: Any, device: Device = DEVICES["h200"]) -> jax.stages.Lowered:
    """`function(*arguments)` as it would be handed to the compiler for one device; arguments may be abstract."""
    with one_device(device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))


def triton_kernels(
    function: Callable[..., Any], *arguments: Any, device: Device = DEVICES["h200"]
) -> list[TritonKernel]:
    """The Triton kernels of `function(*arguments)` on a device, in program order; arguments may be abstract."""
    from jaxlib.mlir import ir

    kernels = []
    module: Any = lower(function, *arguments, device=device).compiler_ir()
    for operation in _operations(module.operation):
        if operation.name != "stablehlo.custom_call":
            continue
        if ir.StringAttr(operation.attributes["call_target_name"]).value != TRITON_CALL:
            continue
        config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
        number = {key: ir.IntegerAttr(config[key]).value for key in ("num_warps", "num_stages", *_GRID)}
        code = _triton_text(ir.StringAttr(config["ir"]).value_bytes)
        programs = number["grid_x"] * number["grid_y"] * number["grid_z"]
        name = ir.StringAttr(config["name"]).value
        kernels.append(TritonKernel(name, code, number["num_warps"], number["num_stages"], programs))
    return kernels


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes of a multiprocessor, and its machine code in order."""

    registers: int  # per thread
    spill_bytes: int  # per thread
    stack_bytes: int  # per thread
    shared_bytes: int  # per program
    instructions: tuple[str, ...]  # opcodes with their suffixes
    loops: tuple[tuple[int, int], ...]  # first and last instruction, outer loops first

    @property
    def loads(self) -> Counter[str]:
        """Loads from global memory by opcode, such as LDG.E.128."""
        return Counter(opcode for opcode in self.instructions if opcode.startswith("LDG"))

    @property
    def vector_load_share(self) -> float:
        """The share of the bytes a thread loads that come 128 bits at a time."""
        widths = {opcode: _load_bytes(opcode) for opcode in self.loads}
        total = sum(widths[opcode] * count for opcode, count in self.loads.items())
        return sum(widths[opcode] * count for opcode, count in self.loads.items() if widths[opcode] == 16) / total

    def executed(self, trips: Sequence[int]) -> int:
        """Instructions a thread executes when its nested loops run `trips` times, outermost first.

        Outer loops that are not in the code were written out by the compiler. Loops inside those named run once.
        """
        depth = [sum(first <= i <= last for first, last in self.loops) for i in range(len(self.instructions))]
        weights = [1]
        for trip in trips[max(0, len(trips) - max(depth)) :]:
            weights.append(weights[-1] * trip)
        return sum(weights[min(d, len(weights) - 1)] for d in depth)


def resources(kernel: TritonKernel, device: Device) -> Resources:
    """Compiles a kernel for a device.

    Raises:
      NotImplementedError: the ``triton`` package is not installed.
    """
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        raise NotImplementedError(
            "Compiling Triton kernels without a GPU needs Triton's own compiler: pip install triton"
        )
    import triton  # pyright: ignore[reportMissingImports]  # an optional package
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]

    major, minor = device.compute_capability
    tools = Path(spec.origin).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ttir"), Path(folder, "kernel.cubin")
        source.write_text(kernel.code)
        options = {"num_warps": kernel.warps, "num_stages": kernel.stages, "enable_fp_fusion": True}
        compiled = triton.compile(str(source), target=GPUTarget("cuda", 10 * major + minor, 32), options=options)
        binary.write_bytes(compiled.asm["cubin"])
        usage = _run(tools / "cuobjdump", "-res-usage", binary)
        assembly = _run(tools / "nvdisasm", "-c", binary)
    used = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", usage)}
    instructions, loops = _parse(assembly)
    # Spills live on the stack; they are told apart by the local loads and stores that fetch them.
    spills = sum(_load_bytes(opcode) for opcode in instructions if opcode.startswith("STL"))
    return Resources(used["REG"], spills, used["STACK"], compiled.metadata.shared, instructions, loops)


_GRID = ("grid_x", "grid_y", "grid_z")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);", re.MULTILINE)


def _parse(assembly: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Opcodes, without padding and the trap loop behind the end, and loops as the spans of backward branches."""
    labels, opcodes, branches = {}, [], []
    for line in assembly.splitlines():
        if label := re.match(r"^(\.L_\w+):", line):
            labels[label[1]] = len(opcodes)
        elif found := _INSTRUCTION.match(line):
            opcode, operands = found[2], found[3]
            if opcode == "BRA" and (target := re.search(r"\.L_\w+", operands)):
                branches.append((len(opcodes), target[0]))
            if not opcode.startswith("NOP"):
                opcodes.append(opcode)
    spans = {(labels[target], at) for at, target in branches if target in labels and labels[target] < at}
    return tuple(opcodes), tuple(sorted(spans, key=lambda span: span[0] - span[1]))


def _load_bytes(opcode: str) -> int:
    suffixes = opcode.split(".")
    widths = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((width for suffix, width in widths.items() if suffix in suffixes), 4)


def _operations(operation) -> Iterator:
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _operations(inner.operation)


def _triton_text(bytecode: bytes) -> str:
    from jaxlib.mlir import ir
    from jaxlib.triton import dialect

    with ir.Context() as context, ir.Location.unknown():
        dialect.register_dialect(context)
        context.load_all_available_dialects()
        context.allow_unregistered_dialects = True
        return str(ir.Module.parse(bytecode))


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _target_config(device: Device) -> str:
    """XLA's description of a device, a text proto."""
    major, minor = device.compute_capability
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 fpus_per_core: 128
          shared_memory_per_block: 49152 shared_memory_per_core: {device.shared_memory}
          shared_memory_per_block_optin: {device.shared_memory - 1024}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          core_count: {device.multiprocessors} clock_rate_ghz: {device.clock / 1e9}
          memory_bandwidth: {round(device.bandwidth)} device_memory_size: {device.memory}
          l2_cache_size: {device.l2_cache}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
        }}
        platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
        device_description_str: "{device.name}"
    """
