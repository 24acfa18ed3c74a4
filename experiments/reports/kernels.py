"""Resources, lower time bounds and predicted times of the GPU kernels: `python -m experiments.kernels`. No GPU needed.

Compiles the kernels of each DDF in ResNet-50 (128 images of 224×224), of Table 2 of the DDF paper and of each
involution in RedNet-50 for an H200 in bfloat16, and writes rows and tables. Needs Triton's compiler: pip install
triton. The Mosaic kernels need JAX 0.11 and its CUDA plugin in addition, and are left out where one is missing.
"""

import argparse
import datetime
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.reports.results import RESULTS, markdown_table, write_results
from pallas_kernels import aot
from pallas_kernels.aot import kernel_table
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50

FOLDER = RESULTS / "kernels"
REDNET50 = tuple(ARG_SPECS[f"rednet50_{size}"] for size in ("56x56x64", "28x28x128", "14x14x256", "7x7x512"))
CALLS = (*RESNET50, ARG_SPECS["fpn_p2"], *REDNET50)
TITLES: dict[Literal["triton", "mosaic_gpu"], str] = {"triton": "Pallas:Triton", "mosaic_gpu": "Pallas:Mosaic GPU"}
BOUNDS = ("floor_us", "instruction_bound_us", "exposed_latency_us", "predicted_us")
HEADS = (
    "B×H×W×C",
    "K",
    "stride",
    "kernels",
    "instructions per output",
    "registers",
    "spills",
    "forward: memory-bound µs",
    "forward: issue-bound µs",
    "forward: waiting for loads µs",
    "forward: predicted µs",
    "all: memory-bound µs",
    "all: issue-bound µs",
    "all: waiting for loads µs",
    "all: predicted µs",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    device = aot.DEVICES["h200"]
    found = []
    for implementation in TITLES:
        try:
            found += [
                (implementation, arg, row)
                for arg in CALLS
                for row in kernel_table(device, arg, jnp.bfloat16, implementation)
            ]
        except NotImplementedError as error:  # no compiler
            print(error, file=sys.stderr)
    if not found:
        return 2
    common = {
        "device": device.name,
        "date": datetime.date.today().isoformat(),
        "versions": {"jax": jax.__version__, "triton": importlib.metadata.version("triton")},
    }
    rows = [
        {
            "call": arg.name,
            "implementation": implementation,
            "x": list(arg.x),
            "kernel_size": list(arg.spec.kernel_size),
            "stride": list(arg.spec.stride),
            **row.as_row(),
            **common,
        }
        for implementation, arg, row in found
    ]
    write_results(FOLDER, "kernels", rows, report(rows))
    return 0


def stored_rows() -> list[dict[str, Any]]:
    """The committed rows."""
    return json.loads((FOLDER / "kernels.json").read_text())


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, a table for each implementation."""
    first = rows[0]
    lines = [
        f"# The kernels of DDF and involution on an {first['device']}, bfloat16",
        "",
        "Compiled, not run: instructions of the forward kernel per element of y, the most registers of a thread and",
        "all spilled bytes of a call's kernels, and two lower bounds of time: every array once over the memory bus,",
        "and every instruction issued. A simulation of the machine code gives the time, and what of it waits for",
        "loads. Not counted: the partial sums that the kernel of both filters' cotangents writes in addition, and",
        "their summation. A sum is that of the kernels that are named; Triton's compute what Mosaic's do not.",
        f"JAX {first['versions']['jax']}, Triton {first['versions']['triton']}, {first['date']}.",
    ]
    for implementation, title in TITLES.items():
        if of_it := [row for row in rows if row["implementation"] == implementation]:
            lines += ["", f"## {title}", "", table(of_it).rstrip()]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of an implementation, a line for each call.

    >>> forward = {"kernel": "forward", "registers": 120, "spill_bytes": 0, "stack_bytes": 0, "floor_us": 22.9}
    >>> forward |= {"instructions_per_output": 26.3, "instruction_bound_us": 20.2, "exposed_latency_us": 9}
    >>> forward |= {"predicted_us": 34}
    >>> spatial = forward | {"kernel": "spatial", "registers": 168, "floor_us": 23.1}
    >>> call = {"call": "a", "x": [128, 56, 56, 64], "kernel_size": [3, 3], "stride": [1, 1]}
    >>> print(table([forward | call, spatial | call]).splitlines()[-1])
    | 128×56×56×64 | 3 | 1 | forward, spatial | 26.3 | 168 | 0 | 22.9 | 20.2 | 9.0 | 34.0 | 46 | 40 | 18 | 68 |
    """
    cells = []
    for call in dict.fromkeys(row["call"] for row in rows):
        kernels = [row for row in rows if row["call"] == call]
        forward = next(row for row in kernels if row["kernel"] == "forward")
        values = [
            "×".join(map(str, forward["x"])),
            *("×".join(map(str, dict.fromkeys(forward[pair]))) for pair in ("kernel_size", "stride")),
            ", ".join(row["kernel"] for row in kernels),
            f"{forward['instructions_per_output']:.1f}",
            str(max(row["registers"] for row in kernels)),
            str(sum(row["spill_bytes"] + row["stack_bytes"] for row in kernels)),
            *(f"{forward[bound]:.1f}" for bound in BOUNDS),
            *(f"{sum(row[bound] for row in kernels):.0f}" for bound in BOUNDS),
        ]
        cells.append(values)
    return markdown_table(HEADS, cells)


if __name__ == "__main__":
    sys.exit(main())
