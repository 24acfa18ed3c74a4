"""Resources, lower time bounds and predicted times of the GPU kernels: `python -m experiments.kernels`. No GPU needed.

Compiles the kernels of each DDF in ResNet-50 (128 images of 224×224) and of Table 2 of the DDF paper for an H200 in
bfloat16, and writes rows and a table. Needs Triton's compiler: pip install triton.
"""

import argparse
import datetime
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.reports.results import RESULTS, markdown_table, write_results
from pallas_kernels import aot
from pallas_kernels.aot import kernel_table
from pallas_kernels.ops.arg_specs import ARG_SPECS, RESNET50

FOLDER = RESULTS / "kernels"
CALLS = (*RESNET50, ARG_SPECS["fpn_p2"])
BOUNDS = ("floor_us", "instruction_bound_us", "exposed_latency_us", "predicted_us")
HEADS = (
    "B×H×W×C",
    "stride",
    "instructions per output",
    "registers",
    "spills",
    "forward: memory-bound µs",
    "forward: issue-bound µs",
    "forward: waiting for loads µs",
    "forward: predicted µs",
    "forward + backward: memory-bound µs",
    "forward + backward: issue-bound µs",
    "forward + backward: waiting for loads µs",
    "forward + backward: predicted µs",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
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
        {"call": arg.name, "x": list(arg.x), "stride": list(arg.spec.stride), **row.as_row(), **common}
        for arg, row in found
    ]
    write_results(FOLDER, "kernels", rows, table(rows))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, a line for each call.

    >>> forward = {"kernel": "forward", "registers": 120, "spill_bytes": 0, "stack_bytes": 0, "floor_us": 22.9}
    >>> forward |= {"instructions_per_output": 26.3, "instruction_bound_us": 20.2, "exposed_latency_us": 9}
    >>> forward |= {"predicted_us": 34}
    >>> spatial = forward | {"kernel": "spatial", "registers": 168, "floor_us": 23.1}
    >>> call = {"call": "a", "x": [128, 56, 56, 64], "stride": [1, 1], "device": "NVIDIA H200", "date": "2026-11-22"}
    >>> call["versions"] = {"jax": "0.10.2", "triton": "3.5.0"}
    >>> print(table([forward | call, spatial | call]).splitlines()[-1])
    | 128×56×56×64 | 1 | 26.3 | 168 | 0 | 22.9 | 20.2 | 9.0 | 34.0 | 46 | 40 | 18 | 68 |
    """
    first = rows[0]
    lines = [
        f"# The kernels of DDF on an {first['device']}, bfloat16, K = 3",
        "",
        "Compiled, not run: instructions of the forward kernel per element of y, the most registers of a thread and",
        "all spilled bytes of a call's kernels, and two lower bounds of time: every array once over the memory bus,",
        "and every instruction issued. A simulation of the machine code gives the time, and what of it waits for",
        "loads. Not counted: the partial sums that the kernel of both filters' cotangents writes in addition, and",
        "their summation.",
        f"JAX {first['versions']['jax']}, Triton {first['versions']['triton']}, {first['date']}.",
        "",
    ]
    cells = []
    for call in dict.fromkeys(row["call"] for row in rows):
        kernels = [row for row in rows if row["call"] == call]
        forward = next(row for row in kernels if row["kernel"] == "forward")
        values = [
            "×".join(map(str, forward["x"])),
            "×".join(map(str, dict.fromkeys(forward["stride"]))),
            f"{forward['instructions_per_output']:.1f}",
            str(max(row["registers"] for row in kernels)),
            str(sum(row["spill_bytes"] + row["stack_bytes"] for row in kernels)),
            *(f"{forward[bound]:.1f}" for bound in BOUNDS),
            *(f"{sum(row[bound] for row in kernels):.0f}" for bound in BOUNDS),
        ]
        cells.append(values)
    return "\n".join(lines) + "\n" + markdown_table(HEADS, cells)


if __name__ == "__main__":
    sys.exit(main())
