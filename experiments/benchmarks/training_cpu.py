"""Times the forward pass and the training step of whole networks on this machine's CPU, next to the PyTorch port.

    python -m experiments.benchmarks.training_cpu --out training_cpu.csv

Float32, all cores, batch 8 of 224×224 pixels. A training step is forward, backward and SGD with momentum. The programs
take turns, so that other load on the machine slows all of them alike. It needs PyTorch.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from ddf_jax.files import write_atomically
from experiments.benchmarks.rows import Row, row_environment, row_time, to_csv
from experiments.benchmarks.training_step import TrainingStep
from pallas_kernels.tuning.timing import Program, compiled_program, host_seconds, peak_bytes, time_programs

PASSES = ("forward", "training_step")
MODELS = ("ddf_resnet50", "resnet50")
MakePrograms = Callable[[TrainingStep], tuple[Program, Program]]
Key = tuple[str, str, str]
"""Framework, model, pass."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.training_cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv file to write")
    parser.add_argument("--models", nargs="+", default=MODELS, help="registered, with a port")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each program (default: %(default)s)")
    options = parser.parse_args(argv)
    rows = measure(options.models, options.batch, options.image_size, options.rounds, ("torch",))
    if options.out is not None:
        write_atomically(options.out, to_csv(rows))
    print(to_csv(rows), end="")
    return 0


def measure(
    models: Sequence[str] = MODELS, batch: int = 8, image_size: int = 224, rounds: int = 7, against: Container[str] = ()
) -> list[Row]:
    """A row for each framework, model and pass.

    Args:
        models: registered names; a framework that has no model of a name is left out there.
        batch: images.
        image_size: their height and width.
        rounds: turns of each program.
        against: "torch" for the port, "timm" for timm's model of the same name.
    """
    programs: dict[Key, Program] = {}
    for name in models:
        step = TrainingStep(name, batch=batch, image_size=image_size, dtype="float32")
        for framework, make in {"jax": jax_programs, **_peers(name, against)}.items():
            for which, program in zip(PASSES, make(step), strict=True):
                programs[framework, name, which] = program
    seconds = time_programs({" ".join(key): program for key, program in programs.items()}, rounds)
    return [
        {"implementation": framework, "model": name, "shape": "x".join(map(str, (batch, image_size, image_size, 3)))}
        | {"dtype": "float32", "pass": which}
        | (time := row_time(seconds[f"{framework} {name} {which}"], program.clock, program.peak_bytes))
        | {"images_per_second": 1e3 * batch / time["median_ms"]}
        | row_environment(framework, jax.devices()[0].device_kind)
        for (framework, name, which), program in programs.items()
    ]


def _peers(name: str, against: Container[str]) -> dict[str, MakePrograms]:
    """What makes the programs of the frameworks that have a model of this name."""
    found: dict[str, MakePrograms] = {}
    if "torch" in against or "timm" in against:
        from ddf_jax import torch_port
        from experiments.benchmarks import torch_peers

        if "torch" in against and torch_port.list_models(name):
            found["torch"] = torch_peers.network_programs
        if "timm" in against and torch_peers.has_timm_model(name):
            found["timm"] = functools.partial(torch_peers.network_programs, create=torch_peers.timm_model)
    return found


def lower_forward(step: TrainingStep) -> jax.stages.Lowered:
    """(state, images) to logits in evaluation mode, not yet compiled."""

    def forward(state: nnx.State, images: jax.Array) -> jax.Array:
        model = nnx.merge(step.structure, state)["model"]
        model.eval()
        return model(images)

    return jax.jit(forward).lower(step.abstract, jax.ShapeDtypeStruct(step.images, jax.numpy.dtype(step.dtype)))


def jax_programs(step: TrainingStep) -> tuple[Program, Program]:
    """The forward pass in evaluation mode, and the training step."""
    state, images, labels = step.arrays()
    compiled = step.lower().compile()
    evaluated = compiled_program(lower_forward(step).compile(), (state, images))
    own = jax.tree.map(np.array, state)  # the step gives its arguments away

    def run() -> None:
        nonlocal own
        own, _ = jax.block_until_ready(compiled(own, images, labels))

    run()
    return evaluated, Program(run, lambda: host_seconds(run, run), "host", peak_bytes(compiled))


def to_table(rows: Sequence[Row]) -> str:
    """Milliseconds and images per second of each framework."""
    lines = [f"{'model':18}{'pass':16}{'':8}{'ms':>20}{'images/s':>10}{'MiB':>8}"]
    lines += [
        f"{row['model']:18}{row['pass']:16}{row['implementation']:8}"
        f"{row['median_ms']:11.1f} ± {row['quartile_distance_ms']:<6.1f}{row['images_per_second']:10.2f}"
        f"{row['peak_bytes'] / 2**20:8.0f}"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
