"""Finds the fastest config of each kernel on the GPU in use, and writes it to the cache folder that the operator reads.

    python -m experiments.tune [NAME ...] [--dtypes bfloat16 float32]
    python -m experiments.tune --rows DIR/rows.jsonl

The names are calls of `pallas_kernels.ARG_SPECS`; by default DDF-ResNet-50's. A config counts only if its values are
those of the portable implementation. With `--rows`, the configs that `experiments.gpu_suite` measured on another
machine are written and nothing is measured.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.benchmarks.rows import Row, read_rows
from pallas_kernels.ops import autotune
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50
from pallas_kernels.ops.config import ArgShape, KernelName
from pallas_kernels.ops.device import current_device
from pallas_kernels.ops.heuristics import backward_kernels
from pallas_kernels.tuning.measure import UNITS, measure_of


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=[arg.name for arg in RESNET50], metavar="NAME")
    parser.add_argument("--dtypes", nargs="*", default=["bfloat16", "float32"], choices=list(UNITS))
    parser.add_argument("--rows", type=Path, metavar="FILE", help="rows of the GPU suite to take the configs from")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - ARG_SPECS.keys():
        parser.error(f"no calls named {sorted(unknown)}; there are: {', '.join(ARG_SPECS)}")
    if options.rows:
        return write_tuned_rows(options.rows)
    device = current_device()
    if not device.runs_triton:
        raise SystemExit(f"Kernels are tuned on an NVIDIA GPU from Ampere on, here is: {device.kind}.")
    autotune.read_tuned_configs(autotune.cache_folder(), device.kind)  # an unusable file fails now, not at the end
    for arg in (ARG_SPECS[name] for name in options.names):
        for dtype in options.dtypes:
            shape = ArgShape.of(*arg.structs(dtype), arg.spec)
            kernels = kernels_of(shape)
            found = autotune.search(shape, kernels, measure_of(arg, dtype))
            for kernel in kernels:
                tuning = found[kernel]
                try:
                    best = tuning.best
                except RuntimeError as error:  # every config fails: continue with the others
                    print(f"{arg.name} {dtype} {kernel}: {error}", flush=True)
                    continue
                autotune.write_tuned_configs(device.kind, {(shape, kernel): best})  # at once: a run may be killed
                print(
                    f"{arg.name} {dtype} {kernel}: {1e6 * tuning.seconds:.1f} µs, the heuristic's config "
                    f"{1e6 * tuning.heuristic_seconds:.1f}, {tuning.failed} of {len(tuning.measured)} failed",
                    flush=True,
                )
    return 0


def kernels_of(shape: ArgShape) -> tuple[KernelName, ...]:
    """The kernels of a call, forward and backward."""
    return "fwd", *backward_kernels(shape)


def write_tuned_rows(path: Path) -> int:
    """Writes the configs among the rows of a GPU suite to the cache folder that the operator reads."""
    found: dict[str, list[Row]] = {}
    for row in read_rows(path):
        if "tuned" in row:
            found.setdefault(row["device"], []).append(row["tuned"])
    for kind, entries in found.items():
        with tempfile.TemporaryDirectory() as folder:  # for the file's own checks
            autotune.tuned_file(Path(folder), kind).write_text(json.dumps(entries))
            configs = autotune.read_tuned_configs(Path(folder), kind)
        print(f"{len(configs)} configs for {kind}: {autotune.write_tuned_configs(kind, configs)}")
    return 0 if found else 1
