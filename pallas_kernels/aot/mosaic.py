"""The forward kernel of Mosaic GPU: its machine code, compiled for a GPU that need not be there.

JAX's CUDA plugin compiles it, in a process of its own: the plugin reads its settings when JAX starts.
"""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from pallas_kernels import compat
from pallas_kernels.aot.machine_code import Resources, assemble
from pallas_kernels.aot.targets import DEVICES, Device, compile_only_devices
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec

PLUGIN = "jax_cuda13_plugin"


def mosaic_resources(device: Device, arg: ArgSpec, dtype: DTypeLike) -> Resources:
    """Compiles the forward kernel of a call for a device.

    Raises:
      NotImplementedError: this JAX has no Mosaic GPU, its CUDA plugin or Triton's assembler is not installed, or the
        kernel cannot compute the call.
    """
    if reason := compat.no_mosaic_gpu():
        raise NotImplementedError(f"Mosaic GPU {reason}")
    if importlib.util.find_spec(PLUGIN) is None:
        compile_only_devices(device, 1)  # raises, and says what to install
    with tempfile.TemporaryDirectory() as folder:
        call = {"device": device.name, "dtype": jnp.dtype(dtype).name, "arg": dataclasses.asdict(arg)}
        done = subprocess.run(
            [sys.executable, "-m", "pallas_kernels.aot.mosaic"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_TO": folder},
            input=json.dumps(call),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotImplementedError(done.stderr.strip().splitlines()[-1])
        [code], [resources] = (list(Path(folder).glob(pattern)) for pattern in ("*.ptx", "*.resources.txt"))
        shared = re.search(r"smem_scratch_bytes=(\d+)", resources.read_text())
        assert shared is not None
        return assemble(code.read_text(), device, int(shared[1]))


def _compile(device: str, dtype: str, arg: dict[str, Any]) -> None:
    """Compiles a call; the compiler leaves its code where the environment says."""
    [target] = [known for known in DEVICES.values() if known.name == device]
    spec = FilterSpec(**arg.pop("spec"))
    call = ArgSpec(**{**arg, "x": tuple(arg["x"])}, spec=spec)
    mesh = jax.make_mesh((1,), ("device",), devices=compile_only_devices(target, 1))
    sharding = NamedSharding(mesh, PartitionSpec())
    present = [struct for struct in call.structs(dtype) if struct is not None]
    arrays = [jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=sharding) for struct in present]
    there = [struct is not None for struct in call.structs(dtype)]

    def run(*arrays: Any) -> Any:
        given = iter(arrays)
        operands: list[Any] = [next(given) if is_there else None for is_there in there]
        return call.call(*operands, implementation="mosaic_gpu")

    with jax.set_mesh(mesh):
        jax.jit(run).lower(*arrays).compile()


if __name__ == "__main__":
    try:
        _compile(**json.load(sys.stdin))
    except NotImplementedError as error:
        sys.exit(str(error))
