"""Times Faster R-CNN with ResNet-50-FPN and its parts on this machine's CPU, next to PyTorch's.

    python -m experiments.benchmarks.detection_cpu --out detection_cpu.csv --python /other/bin/python

ddf_jax, its PyTorch port and, where `--python` has it, torchvision's network, in float32 on all cores, with the same
weights. Each runs in a process of its own, and the parts take turns, so that other load on the machine slows all of
them alike. The parts get the same boxes and scores, as a trained network has them (`detection_inputs`). It needs
PyTorch.

Parts: `backbone`; `pyramid`, the backbone and the neck; `rpn_head`, the convolutions of the first stage; `proposals`,
top k, decoding and suppression; `nms_N` of N boxes in five groups; `roi_align_box`, 7×7 bins of each proposal;
`box_head`; `detections`, the choice of 100 boxes; `roi_align_mask`, 14×14 bins of 100 boxes; `paste_masks`, 100 masks
in the image; `rest`, all that follows `rpn_head`; `forward`, image to detections; `training_step` of two smaller
images.

`peak_bytes` counts arguments, results and temporaries: by XLA's account of the compiled program, for PyTorch by its
profiler's record of every allocation of one run. `process_bytes` of the training step is the largest resident memory of
a process during a step, minus the one before it had any array; what compilation has released does not count.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddf_jax.files import write_atomically
from experiments.benchmarks.detection_inputs import Arrays, make_inputs, make_weights, part_shapes, write_arrays
from experiments.benchmarks.rows import Row, row_machine, row_time, to_csv
from experiments.benchmarks.turns import Child
from pallas_kernels.tuning.timing import Program, time_programs

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.detection_cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv file to write")
    parser.add_argument("--python", metavar="PYTHON", help="with NumPy, torch and torchvision; without it two run")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216), metavar=("H", "W"), help="of the image")
    parser.add_argument(
        "--training-size", type=int, nargs=2, default=(400, 608), metavar=("H", "W"), help="of the step's two images"
    )
    parser.add_argument("--proposals", type=int, default=1000, help="of an image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each part (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these")
    options = parser.parse_args(argv)
    inputs = make_inputs(tuple(options.size), tuple(options.training_size), options.proposals)
    commands = peer_commands(options.python)
    rows = measure(commands, inputs, make_weights(), options.rounds, options.parts)
    if options.out is not None:
        write_atomically(options.out, to_csv(rows))
    print(to_table(rows), end="")
    return 0


def peer_commands(python: str | None) -> dict[str, list[str]]:
    """What starts each implementation; its last argument, a folder, is missing.

    Args:
        python: that has torchvision; None for none.
    """
    pythons = {"jax": sys.executable, "port": sys.executable, "torchvision": python}
    names = {"jax": "jax", "port": "torch_port", "torchvision": "torchvision"}
    return {
        names[name]: [python, "-m", f"experiments.benchmarks.detection_{name}"]
        for name, python in pythons.items()
        if python is not None
    }


def measure(
    commands: Mapping[str, Sequence[str]],
    inputs: Arrays,
    weights: Arrays,
    rounds: int,
    parts: Sequence[str] | None = None,
) -> list[Row]:
    """A row for each part and implementation.

    Args:
        commands: that start the implementations, without the folder of the arrays.
        inputs: of `make_inputs`.
        weights: of `make_weights`.
        rounds: turns of each part.
        parts: the ones to run; None for all.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {"KINETO_LOG_LEVEL": "5", **os.environ, "PYTHONPATH": path}  # the profiler of torch is talkative
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for name, arrays in (("inputs", inputs), ("weights", weights)):
            write_arrays(Path(folder) / f"{name}.npz", arrays)

        def child(name: str) -> Child:
            return Child([*commands[name], folder], environment)

        grown: dict[tuple[str, str], float] = {}
        for name in commands if parts is None or "training_step" in parts else ():
            with child(name) as own:
                grown[name, "training_step"] = own.ask("growth", "training_step")
        children = {name: stack.enter_context(child(name)) for name in commands}
        keys = [
            (name, part)
            for part in next(iter(children.values())).parts
            for name in children
            if parts is None or part in parts
        ]
        seconds = time_programs({" ".join(key): _program(children[key[0]], key[1]) for key in keys}, rounds)
        shapes = part_shapes(inputs)
        return [
            {"implementation": name, "part": part, "shape": shapes[part], "dtype": "float32"}
            | row_time(seconds[f"{name} {part}"], "host", int(children[name].ask("bytes", part)))
            | {"process_bytes": int(grown[name, part]) if (name, part) in grown else None}
            | {"compile_s": children[name].ask("compile", part) or None}
            | row_machine("cpu", children[name].versions)
            for name, part in keys
        ]


def to_table(rows: Sequence[Row]) -> str:
    """Milliseconds of each part; of the others also how many times longer than ddf_jax's."""
    names = list(dict.fromkeys(row["implementation"] for row in rows))
    cells = {(row["implementation"], row["part"]): row["median_ms"] for row in rows}
    lines = [["part", *names]]
    for part in dict.fromkeys(row["part"] for row in rows):
        own = cells[names[0], part]
        others = [f"{cells[name, part]:.2f} ({cells[name, part] / own:.2f}×)" for name in names[1:]]
        lines.append([part, f"{own:.2f}", *others])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines)
    return "\n".join("  ".join(line) for line in padded) + "\n"


def _program(child: Child, part: str) -> Program:
    def run() -> float:
        return child.ask("run", part)

    run()  # makes and compiles it
    return Program(run, lambda: child.ask("seconds", part), "host", 0)


if __name__ == "__main__":
    sys.exit(main())
