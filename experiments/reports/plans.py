"""What a training step of DDF-ResNet-50 needs of an H200: `python -m experiments.plans`. No GPU needed.

Compiles steps that differ only in the operator, as `ddf plan` does: 3×3 convolutions, the dynamic filter, and an unfold
formulation of it under automatic differentiation, on eight devices for collectives and memory; the first two on one
device for the kernels launched and the bytes moved. Writes rows and tables. Takes minutes and needs JAX's CUDA plugin.
"""

import argparse
import contextlib
import dataclasses
import datetime
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from ddf_jax.layers import ddf
from ddf_jax.plan import plan
from ddf_jax.recipes import find_recipe
from ddf_jax.training.recipe import Recipe
from experiments.benchmarks.peers import unfold
from experiments.reports.results import RESULTS, markdown_table, write_results
from pallas_kernels.ops.normalization import normalized
from pallas_kernels.ops.spec import FilterSpec, accumulator_dtype

FOLDER = RESULTS / "plan"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plans", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    plain, ours = find_recipe("imagenet_resnet50"), find_recipe("imagenet_ddf_resnet50")
    try:
        rows = measure(plain, ours)
    except NotImplementedError as error:  # no plugin
        print(error, file=sys.stderr)
        return 2
    write_results(FOLDER, "plans", rows, table(rows))
    return 0


def measure(plain: Recipe, ours: Recipe) -> list[dict[str, Any]]:
    """A row for each step: that of `ddf plan`, with the operator and the date."""
    steps = {"3×3 convolution": plain, "dynamic_filter": ours}
    rows: list[dict[str, Any]] = [plan(recipe) | {"operator": operator} for operator, recipe in steps.items()]
    with unfolded():
        rows.append(plan(ours) | {"operator": "unfold"})
    for operator, recipe in steps.items():
        share = dataclasses.replace(recipe, batch_size=recipe.batch_size // rows[0]["devices"])
        rows.append(plan(share, devices=1) | {"operator": operator})
    return [row | {"date": datetime.date.today().isoformat()} for row in rows]


@contextlib.contextmanager
def unfolded() -> Iterator[None]:
    """A context in which DDF layers compute the unfold formulation and its automatic derivative."""

    def dynamic_filter(x, spatial, channel, *, stride, dilation, combine, implementation, normalize, gain):
        del implementation
        spec = FilterSpec(3, stride, 1, dilation, combine, normalize=normalize, gain=gain)
        spatial = normalized(spatial.astype(accumulator_dtype(spatial)), spec).astype(spatial.dtype)
        return unfold(spec, x, jnp.expand_dims(spatial, 3), jnp.expand_dims(channel, 1))

    # Functions that JAX has traced with one operator must not be reused for the other.
    jax.clear_caches()
    with mock.patch.object(ddf, "dynamic_filter", dynamic_filter):
        yield
    jax.clear_caches()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown.

    >>> row = {"recipe": "a", "device": "h200", "devices": 8, "batch_size": 1024, "dtype": "bfloat16", "jax": "0.10.2"}
    >>> row |= {"collectives": {"all_gather": 0, "all_reduce": 7}, "operator": "unfold", "date": "2026-11-22"}
    >>> row |= {"bytes_per_device": {"arguments": 2**28, "outputs": 2**28, "temporaries": 2**33}}
    >>> print(table([row]).split("\\n\\n")[-1])
    | operator | all-reduces | other collectives | arguments (GiB) | temporaries (GiB) |
    |---|--:|--:|--:|--:|
    | unfold | 7 | 0 | 0.25 | 8.00 |
    <BLANKLINE>
    """
    first = rows[0]
    lines = [
        f"# A training step of ResNet-50 on {first['devices']} {first['device']}, batch {first['batch_size']}, "
        f"{first['dtype']}",
        "",
        "Compiled, not run; bytes per device. The rows differ only in the operator of the 3×3 slots.",
        f"JAX {first['jax']}, {first['date']}.",
        "",
    ]
    heads = ["operator", "all-reduces", "other collectives", "arguments (GiB)", "temporaries (GiB)"]
    cells = []
    for row in (row for row in rows if row["devices"] > 1):
        collectives, sizes = row["collectives"], row["bytes_per_device"]
        values = [
            row["operator"],
            str(collectives["all_reduce"]),
            str(sum(collectives.values()) - collectives["all_reduce"]),
            *(f"{sizes[kind] / 2**30:.2f}" for kind in ("arguments", "temporaries")),
        ]
        cells.append(values)
    return "\n".join(lines) + "\n" + markdown_table(heads, cells) + kernel_table(rows)


def kernel_table(rows: Sequence[dict[str, Any]]) -> str:
    """The kernels of the rows of one device, by category, as Markdown; empty where there is no such row.

    >>> total = {"launches": 3, "bytes": 2e9, "flops": 0, "roofline_us": 520.4}
    >>> row = {"device": "h200", "devices": 1, "batch_size": 128, "operator": "unfold", "launches": {"total": total}}
    >>> print(kernel_table([row]).split("\\n\\n")[-1])
    | kernels | unfold: launches | GB | ms |
    |---|--:|--:|--:|
    | total | 3 | 2.00 | 0.52 |
    <BLANKLINE>
    """
    alone = [row for row in rows if row["devices"] == 1]
    if not alone:
        return ""
    lines = [
        "",
        f"## Kernels of the step on one {alone[0]['device']}, batch {alone[0]['batch_size']}",
        "",
        "ms is a lower bound: of each kernel its bytes at 4.3 TB/s, its matrix products or convolutions at 600 TFLOP/s",
        "or 1.8 µs, the largest. A kernel belongs to the category of most of the operations that XLA fused into it.",
        "",
    ]
    heads = ["kernels"]
    for row in alone:
        heads += [f"{row['operator']}: launches", "GB", "ms"]
    cells = []
    for category in alone[0]["launches"]:
        cells.append([category.replace("_", " ")])
        for sums in (row["launches"][category] for row in alone):
            values = sums["launches"], sums["bytes"] / 1e9, sums["roofline_us"] / 1e3
            cells[-1] += [str(values[0]), f"{values[1]:.2f}", f"{values[2]:.2f}"]
    return "\n".join(lines) + "\n" + markdown_table(heads, cells)


if __name__ == "__main__":
    sys.exit(main())
