"""Cotangents of the operator over a mesh of the devices of several processes; this is one of them:

`python launch.py OUT IMPLEMENTATION`, with `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` set.
Process 0 writes OUT, a `.npz` of the arrays in `NAMES`.
"""

import os
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels.ops import xla
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests import compilation
from tests.pallas_kernels import suite
from tests.pallas_kernels.ops.test_triton import QUICKLY, Interpreted

IMPLEMENTATIONS = {"xla": xla, "triton": Interpreted()}
ARGS = {
    "xla": ArgSpec("shared_filter", (4, 4, 3, 8)),
    "triton": ArgSpec("one_tap", (4, 4, 3, 8), FilterSpec(1)),  # interpreted, a tap takes seconds to compile
}
NAMES = ("y", "x", "spatial", "channel")


def main() -> None:
    compilation.configure()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    environment = os.environ
    jax.distributed.initialize(
        environment["JAX_COORDINATOR_ADDRESS"],
        num_processes=int(environment["JAX_NUM_PROCESSES"]),
        process_id=int(environment["JAX_PROCESS_ID"]),
    )
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    like_x = P("data", None, None, "model")
    specs = (like_x, P("data"), like_x, like_x)
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    out, name = sys.argv[1:]
    arg, implementation = ARGS[name], IMPLEMENTATIONS[name]
    arrays = tuple(
        jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        for array, sharding in zip((*arg.arrays(), arg.cotangent()), shardings, strict=True)
    )
    run = jax.jit(suite.pull_back(suite.by_module(implementation)(arg)), out_shardings=NamedSharding(mesh, P()))
    results = run.lower(*arrays).compile(QUICKLY)(*arrays)
    if jax.process_index() == 0:
        np.savez(out, allow_pickle=False, **dict(zip(NAMES, map(np.asarray, results), strict=True)))


if __name__ == "__main__":
    main()
