"""Summaries of whole programs for eight compile-only GPUs, printed as JSON.

It runs in a separate process, because JAX's CUDA plugin reads its settings when JAX starts.

`python programs.py "MODE SPLIT [IMPLEMENTATION]" ...` prints `{"MODE SPLIT [IMPLEMENTATION] PASS": summary}`, and
`"auto both attention"`.
"""

import functools
import json
import sys

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from pallas_kernels import aot, neighborhood_attention
from pallas_kernels.ops.arg_specs import ArgSpec
from pallas_kernels.ops.spec import FilterSpec
from tests.pallas_kernels import suite

ARG = ArgSpec("stage", (512, 7, 7, 128), FilterSpec(1))  # one tap compiles soonest, and splits as any
SPLITS = {"samples": (8, 1), "channels": (1, 8), "both": (2, 4)}
LIKE_X = P("data", None, None, "model")
SPECS = (LIKE_X, P("data"), LIKE_X, LIKE_X)


def main() -> None:
    devices = aot.compile_only_devices(aot.DEVICES["h200"], 8)
    found = {}
    for wanted in sys.argv[1:]:
        mode, split, *names = wanted.split()
        axis_type = AxisType.Explicit if mode == "explicit" else AxisType.Auto
        mesh = jax.make_mesh(SPLITS[split], ("data", "model"), axis_types=(axis_type,) * 2, devices=devices)
        structs = [
            jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=NamedSharding(mesh, spec))
            for struct, spec in zip((*ARG.structs("bfloat16"), ARG.structs("bfloat16")[0]), SPECS, strict=True)
        ]
        forward = functools.partial(ARG.call, implementation=(*names, "triton"))
        if mode == "shard_map":
            forward = jax.shard_map(forward, mesh=mesh, in_specs=SPECS[:3], out_specs=LIKE_X)
        with jax.set_mesh(mesh):
            for name, function, inputs in (
                ("forward", forward, structs[:3]),
                ("both", suite.pull_back(forward), structs),
            ):
                found[f"{wanted} {name}"] = aot.program_summary(jax.jit(function).lower(*inputs).compile())
            if wanted == "auto both":
                attend = functools.partial(neighborhood_attention, kernel_size=(1, 3), num_heads=8, border="shift")
                program = jax.jit(attend).lower(structs[0], structs[0], structs[0])
                found[f"{wanted} attention"] = aot.program_summary(program.compile())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
