"""What the GPU kernels take, known without a GPU: `python -m experiments.kernels`.

Compiles the kernels of each DDF in ResNet-50, 128 images of 224×224, and of Table 2 of the DDF paper for an H200
in bfloat16, and writes rows and a table. It needs Triton's compiler: pip install triton.
"""

import datetime
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.reports.results import write_page
from pallas_kernels import aot
from pallas_kernels.aot import kernel_table
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50

RESULTS = Path(__file__).parent / "results" / "kernels"
CALLS = (*RESNET50, ARG_SPECS["fpn_p2"])
BOUNDS = ("floor_us", "instruction_bound_us")


def main() -> int:
    device = aot.DEVICES["h200"]
    try:
        found = [(arg, row) for arg in CALLS for row in kernel_table(device, arg, jnp.bfloat16)]
    except NotImplementedError as error:  # no compiler
        print(error, file=sys.stderr)
        return 2
    common = {
        "device": device.name,
        "date": datetime.date.today().isoformat(),
        "versions": {"jax": jax.__version__, "triton": importlib.metadata.version("triton")},
    }
    rows = [
        {"call": arg.name, "x": list(arg.x), "stride": arg.spec.stride, **row.as_row(), **common} for arg, row in found
    ]
    write_page(RESULTS, "kernels", rows, table(rows))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, a line for each call.

    >>> forward = {"kernel": "forward", "registers": 120, "spill_bytes": 0, "stack_bytes": 0, "floor_us": 22.9}
    >>> forward |= {"instructions_per_output": 26.3, "instruction_bound_us": 20.2}
    >>> spatial = forward | {"kernel": "spatial", "registers": 168, "floor_us": 23.1}
    >>> call = {"call": "a", "x": [128, 56, 56, 64], "stride": 1, "device": "NVIDIA H200", "date": "2026-11-22"}
    >>> call["versions"] = {"jax": "0.10.2", "triton": "3.5.0"}
    >>> print(table([forward | call, spatial | call]).split("\\n\\n")[-1])
    | B×H×W×C | stride | instructions per output | registers | spills | bytes | issue | all, bytes | all, issue |
    |---|--:|--:|--:|--:|--:|--:|--:|--:|
    | 128×56×56×64 | 1 | 26.3 | 168 | 0 | 22.9 | 20.2 | 46 | 40 |
    <BLANKLINE>
    """
    first = rows[0]
    lines = [
        f"# The kernels of DDF on an {first['device']}, bfloat16, K = 3",
        "",
        "Found by compiling, not by running: instructions of the forward kernel per element of y, the most registers",
        "of a thread and all spilled bytes of its kernels, and two lower bounds of the time of the forward kernel",
        "and of all of them, in µs: every array once over the memory bus, and every instruction issued. Left out is",
        "what the kernel of both filters' cotangents writes beside them, its partial sums, and the adding of those.",
        f"JAX {first['versions']['jax']}, Triton {first['versions']['triton']}, {first['date']}.",
        "",
        "| B×H×W×C | stride | instructions per output | registers | spills | bytes | issue | all, bytes | all, issue |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for call in dict.fromkeys(row["call"] for row in rows):
        kernels = [row for row in rows if row["call"] == call]
        forward = next(row for row in kernels if row["kernel"] == "forward")
        cells = [
            "×".join(map(str, forward["x"])),
            str(forward["stride"]),
            f"{forward['instructions_per_output']:.1f}",
            str(max(row["registers"] for row in kernels)),
            str(sum(row["spill_bytes"] + row["stack_bytes"] for row in kernels)),
            *(f"{forward[bound]:.1f}" for bound in BOUNDS),
            *(f"{sum(row[bound] for row in kernels):.0f}" for bound in BOUNDS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
