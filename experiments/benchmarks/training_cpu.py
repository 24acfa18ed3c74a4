"""Times the forward pass and the training step of whole networks on this machine's CPU, next to the PyTorch port.

    python -m experiments.benchmarks.training_cpu --out training_cpu.csv

Float32, all cores, batch 8 of 224×224 pixels. A training step is forward, backward and SGD with momentum. The programs
take turns, so that other load on the machine slows all of them alike. It needs PyTorch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from ddf_jax.files import write_atomically
from experiments.benchmarks.rows import Row, row_environment, row_time, to_csv
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels.tuning.timing import Program, compiled_program, host_seconds, peak_bytes, time_programs

PASSES = ("forward", "training_step")
Key = tuple[str, str, str]
"""Framework, model, pass."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training_cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv file to write")
    parser.add_argument("--models", nargs="+", default=["ddf_resnet50", "resnet50"], help="registered, with a port")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each program (default: %(default)s)")
    options = parser.parse_args(argv)
    rows = measure(options.models, options.batch, options.image_size, options.rounds)
    if options.out is not None:
        write_atomically(options.out, to_csv(rows))
    print(to_csv(rows), end="")
    return 0


def measure(models: Sequence[str], batch: int, image_size: int, rounds: int) -> list[Row]:
    """A row for each framework, model and pass."""
    from experiments.benchmarks import torch_peers

    programs: dict[Key, Program] = {}
    for name in models:
        step = TrainingStep(name, batch=batch, image_size=image_size, dtype="float32")
        for framework, make in (("jax", jax_programs), ("torch", torch_peers.network_programs)):
            for which, program in zip(PASSES, make(step), strict=True):
                programs[framework, name, which] = program
    seconds = time_programs({" ".join(key): program for key, program in programs.items()}, rounds)
    return [
        {"implementation": framework, "model": name, "shape": "x".join(map(str, (batch, image_size, image_size, 3)))}
        | {"dtype": "float32", "pass": which}
        | row_time(seconds[f"{framework} {name} {which}"], program.clock, program.peak_bytes)
        | row_environment(framework, "cpu")
        for (framework, name, which), program in programs.items()
    ]


def jax_programs(step: TrainingStep) -> tuple[Program, Program]:
    """The forward pass in evaluation mode, and the training step."""
    state, images, labels = step.arrays()

    def forward(state: nnx.State, images: jax.Array) -> jax.Array:
        model = nnx.merge(step.structure, state)["model"]
        model.eval()
        return model(images)

    compiled = step.lower().compile()
    evaluated = compiled_program(jax.jit(forward).lower(state, images).compile(), (state, images))
    own = jax.tree.map(np.array, state)  # the step gives its arguments away

    def run() -> None:
        nonlocal own
        own, _ = jax.block_until_ready(compiled(own, images, labels))

    run()
    return evaluated, Program(run, lambda: host_seconds(run, run), "host", peak_bytes(compiled))


if __name__ == "__main__":
    sys.exit(main())
