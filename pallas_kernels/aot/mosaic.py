"""The kernels of Mosaic GPU: their machine code, compiled for a GPU that need not be there.

JAX's CUDA plugin compiles them, in a process of their own: the plugin reads its settings when JAX starts.
"""

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from pallas_kernels import compat
from pallas_kernels.aot.machine_code import Resources, assemble
from pallas_kernels.aot.targets import DEVICES, Device, compile_only_devices
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec

REFUSED = 3  # exit status
PLUGIN = "jax_cuda13_plugin"


def mosaic_resources(
    device: Device, arg: ArgSpec, dtype: DTypeLike, kernel: Literal["fwd", "dx", "dfilters"] = "fwd"
) -> Resources:
    """Compiles a kernel of a call for a device.

    Raises:
      NotImplementedError: this JAX has no Mosaic GPU, its CUDA plugin or Triton's assembler is not installed, or the
        kernel cannot compute the call.
    """
    if reason := compat.no_mosaic_gpu():
        raise NotImplementedError(f"Mosaic GPU {reason}")
    if importlib.util.find_spec(PLUGIN) is None:
        compile_only_devices(device, 1)  # raises, and says what to install
    with tempfile.TemporaryDirectory() as folder:
        call = {"device": device.name, "dtype": jnp.dtype(dtype).name, "kernel": kernel, "arg": dataclasses.asdict(arg)}
        done = subprocess.run(
            [sys.executable, "-m", "pallas_kernels.aot.mosaic"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_TO": folder},
            input=json.dumps(call),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == REFUSED:
            raise NotImplementedError(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            raise RuntimeError(f"The kernel was not compiled:\n{done.stderr}")
        [code], [resources] = (list(Path(folder).glob(pattern)) for pattern in ("*.ptx", "*.resources.txt"))
        shared = re.search(r"smem_scratch_bytes=(\d+)", resources.read_text())
        assert shared is not None
        return assemble(code.read_text(), device, int(shared[1]))


def _compile(device: str, dtype: str, kernel: str, arg: dict[str, Any]) -> None:
    """Compiles a call; the compiler leaves its code where the environment says."""
    [target] = [known for known in DEVICES.values() if known.name == device]
    spec = FilterSpec(**arg.pop("spec"))
    call = ArgSpec(**{**arg, "x": tuple(arg["x"])}, spec=spec)
    mesh = jax.make_mesh((1,), ("device",), devices=compile_only_devices(target, 1))
    sharding = NamedSharding(mesh, PartitionSpec())
    structs = [*call.structs(dtype), call.output_struct(dtype)]
    present = [struct for struct in structs if struct is not None]
    arrays = [jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=sharding) for struct in present]

    def run(*arrays: Any) -> Any:
        given = iter(arrays)
        x, spatial, channel, dy = [None if struct is None else next(given) for struct in structs]
        assert x is not None
        forward = functools.partial(call.call, implementation="mosaic_gpu")
        if kernel == "fwd":
            return forward(x, spatial, channel)
        if kernel == "dx":
            return jax.vjp(lambda x: forward(x, spatial, channel), x)[1](dy)
        return jax.vjp(functools.partial(forward, x), spatial, channel)[1](dy)

    with jax.set_mesh(mesh):
        jax.jit(run).lower(*arrays).compile()


if __name__ == "__main__":
    try:
        _compile(**json.load(sys.stdin))
    except NotImplementedError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
