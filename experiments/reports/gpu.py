"""Tables of the rows that `python -m experiments.gpu_suite --out DIR` measured.

    python -m experiments.gpu_report DIR

Reads DIR/rows.jsonl, writes DIR/gpu.md and prints it. Rows with an error are left out.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ddf_jax.files import write_atomically
from experiments.benchmarks.peers import MOSAIC
from experiments.benchmarks.rows import Row, read_rows
from experiments.reports import kernels
from experiments.reports.results import markdown_table

OURS = "triton"
PEERS = {
    MOSAIC: "Mosaic GPU",
    "xla_unfold": "unfold, JAX",
    "torch_compiled_unfold": "unfold, torch.compile",
    "torch_unfold": "unfold, PyTorch",
    "xla_depthwise": "depthwise, JAX",
    "torch_depthwise": "depthwise, PyTorch",
}
PASSES = {"forward": "Forward", "forward_backward": "Forward + backward"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the suite's folder")
    folder = parser.parse_args(arguments).folder
    rows = read_rows(folder / "rows.jsonl")
    if not rows:
        parser.error(
            f"no rows in {folder / 'rows.jsonl'}: `python -m experiments.gpu_suite --out {folder}` measures them"
        )
    text = report(rows)
    write_atomically(folder / "gpu.md", text)
    print(text)
    return 0


def report(rows: Iterable[Row]) -> str:
    """Everything that was measured, a part for each device."""
    measured = [row for row in rows if "error" not in row]
    devices = dict.fromkeys(row["device"] for row in measured)
    return "\n".join(_device_report(name, [row for row in measured if row["device"] == name]) for name in devices)


def _device_report(device: str, rows: Sequence[Row]) -> str:
    versions = "; ".join(dict.fromkeys(row["versions"] for row in rows))
    dates = ", ".join(sorted({row["date"] for row in rows}))
    lines = [
        f"# The GPU suite on {device}",
        "",
        f"{versions}; {dates}.",
        "Medians. Operators: in JAX the time of the kernels, in PyTorch that between CUDA events. Inputs that fit the",
        "L2 cache may lie there. Training steps: by the host's clock. Predicted: microseconds, by the model of",
        "`python -m experiments.kernels`, of today's kernels and configs.",
        "",
    ]
    sections: dict[str, Callable[[Sequence[Row]], str]] = {
        "Checks against float64": checks_table,
        **{f"Operator: {title.lower()}": _operator_section(which) for which, title in PASSES.items()},
        "Attention": attention_table,
        "Training steps": steps_table,
        "Kernels of a training step": kernels_table,
        "Kernel configs": tuning_table,
    }
    found = {title: section(rows) for title, section in sections.items()}
    return "\n".join([*lines, *(f"## {title}\n\n{text}" for title, text in found.items() if text)])


def checks_table(rows: Iterable[Row]) -> str:
    """Checks passed, by dtype."""
    checks: dict[str, list[Row]] = {}
    for row in rows:
        if row["part"] == "checks":
            checks.setdefault(row["dtype"], []).append(row)
    cells = [
        (
            dtype,
            str(len(found)),
            str(sum(row["passed"] for row in found)),
            f"{max(row['worst_share_of_tolerance'] for row in found):.2f}",
        )
        for dtype, found in checks.items()
    ]
    return _table(("dtype", "checks", "passed", "largest error / allowed"), cells)


def operator_table(rows: Sequence[Row], which: str) -> str:
    """The operator's kernels in one pass next to their peers.

    >>> common = {"part": "timings", "shape": "a", "dtype": "bfloat16", "pass": "forward", "minimum_bytes": 4e8}
    >>> rows = [{"implementation": "copy", "part": "timings", "bytes_per_second": 4e12}]
    >>> rows += [common | {"implementation": "triton", "median_ms": 0.2}]
    >>> rows += [common | {"implementation": "xla_unfold", "median_ms": 1.0}]
    >>> print(operator_table(rows, "forward"), end="")
    | call | µs | predicted | share of the copy bandwidth | unfold, JAX | speed-up |
    |---|--:|--:|--:|--:|--:|
    | a, bfloat16 | 200.0 |  | 50 % | 1000.0 | 5.0× |
    """
    times: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row.get("pass") == which and "minimum_bytes" in row:
            times.setdefault((row["shape"], row["dtype"]), {})[row["implementation"]] = row
    device, predicted = next((row["device"] for row in rows if "device" in row), ""), predictions(which)
    bandwidth = next((row["bytes_per_second"] for row in rows if row.get("implementation") == "copy"), None)
    calls = {key: found for key, found in times.items() if OURS in found}
    peers = {name: title for name, title in PEERS.items() if any(name in found for found in calls.values())}
    cells = []
    for (shape, dtype), found in calls.items():
        ours = found[OURS]
        share = f"{100 * ours['minimum_bytes'] / bandwidth / (1e-3 * ours['median_ms']):.0f} %" if bandwidth else ""
        model = {name: predicted.get((device, shape, dtype, name), "") for name in (OURS, MOSAIC)}
        cells.append([f"{shape}, {dtype}", f"{1e3 * ours['median_ms']:.1f}", model[OURS], share])
        for name in peers:
            peer = found.get(name)
            cells[-1] += [f"{1e3 * peer['median_ms']:.1f}" if peer else ""]
            cells[-1] += [model[name]] if name == MOSAIC else []
            cells[-1] += [_ratio(peer, ours) if peer else ""]
    heads = ["call", "µs", "predicted", "share of the copy bandwidth"]
    for name, title in peers.items():
        heads += [title, *(["predicted"] if name == MOSAIC else []), "speed-up"]
    return _table(heads, cells)


def predictions(which: str) -> dict[tuple[str, str, str, str], str]:
    """Microseconds that the model of `experiments.kernels` gives, by device, call, dtype and implementation.

    Only of calls whose kernels it has all: Mosaic leaves some of a backward pass to Triton.
    """
    times: dict[tuple[str, str, str, str], dict[str, float]] = {}
    for row in kernels.stored_rows():
        key = row["device"], row["call"], row["spec"].split()[-1], row["implementation"]
        times.setdefault(key, {})[row["kernel"]] = row["predicted_us"]
    if which == "forward":
        return {key: f"{found['forward']:.1f}" for key, found in times.items()}
    every = {key[:3]: found.keys() for key, found in times.items() if key[3] == OURS}
    whole = {key: found for key, found in times.items() if found.keys() == every.get(key[:3])}
    return {key: f"{sum(found.values()):.1f}" for key, found in whole.items()}


def attention_table(rows: Iterable[Row]) -> str:
    """The attention kernel next to the composition that it replaces."""
    times: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["part"] == "timings" and row["shape"].startswith("attention"):
            times.setdefault((row["shape"], row["dtype"]), {})[row["implementation"]] = row
    cells = []
    for (shape, dtype), found in times.items():
        if {OURS, f"{OURS}_composed"} <= found.keys():
            pair = found[OURS], found[f"{OURS}_composed"]
            values = [f"{1e3 * row['median_ms']:.0f} ({row['peak_bytes'] / 1e6:.0f})" for row in pair]
            cells.append([f"{shape}, {dtype}", *values, _ratio(pair[1], pair[0])])
    return _table(("call", "one kernel, µs (MB)", "composed, µs (MB)", "speed-up"), cells)


def steps_table(rows: Iterable[Row]) -> str:
    """Training steps of whole networks."""
    cells = [
        (
            f"{row['implementation']}, {row['shape']}, {row['dtype']}",
            f"{row['median_ms']:.1f}",
            f"{row['images_per_second']:.0f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
        )
        for row in rows
        if row.get("pass") == "training_step"
    ]
    return _table(("network, images", "ms", "images/s", "memory (GiB)"), cells)


def kernels_table(rows: Iterable[Row]) -> str:
    """The kernels of a step of each network, by category, next to their bounds."""
    steps = {row["implementation"]: row for row in rows if "kernels" in row}
    categories = dict.fromkeys(category for row in steps.values() for category in row["kernels"] if category != "total")
    heads = ["kernels", *(head for name in steps for head in (f"{name}: launches", "ms", "bound, ms"))]
    cells = []
    for category in (*categories, "total"):
        cells.append([category.replace("_", " ")])
        for row in steps.values():
            sums: Mapping[str, float] = row["kernels"].get(category, {"launches": 0, "ms": 0, "bound_ms": 0})
            bound = f"{sums['bound_ms']:.2f}" if sums["bound_ms"] else ""
            cells[-1] += [f"{sums['launches']:.0f}", f"{sums['ms']:.2f}", bound]
    idle = (f"{100 * row['idle_share']:.1f} % of {row['span_ms']:.1f} ms ({name})" for name, row in steps.items())
    notes = (
        "From a trace. The bound of a kernel: its bytes at the bandwidth of a copy, its matrix products or\n"
        "convolutions at 600 TFLOP/s, which some exceed, or 1.8 µs, the largest. `library`: kernels of libraries\n"
        f"whose instruction cannot be told. No kernel runs in {', '.join(idle)}.\n\n"
    )
    return notes + _table(heads, cells) if steps else ""


def tuning_table(rows: Iterable[Row]) -> str:
    """The configs that the search found, next to the heuristic's."""
    cells = [
        (
            f"{row['shape']}, {row['dtype']}, {row['tuned']['kernel']}",
            f"{1e3 * row['heuristic_ms']:.1f}" if row["heuristic_ms"] is not None else "",
            f"{1e3 * row['median_ms']:.1f}",
            _config(row["tuned"]["config"]),
            f"{1e3 * row['separate_ms']:.1f}" if row.get("separate_ms") is not None else "",
        )
        for row in rows
        if "tuned" in row
    ]
    heads = ("kernel", "heuristic, µs", "best, µs", "its tile and warps", "dspatial + dchannel, µs")
    return _table(heads, cells)


def _operator_section(which: str) -> Callable[[Sequence[Row]], str]:
    return lambda rows: operator_table(rows, which)


def _config(config: Mapping[str, int]) -> str:
    return f"{config['tile_h']}×{config['tile_w']}, {config['num_warps']}"


def _ratio(slower: Row, faster: Row) -> str:
    return f"{slower['median_ms'] / faster['median_ms']:.1f}×"


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Empty where nothing was measured."""
    return markdown_table(heads, cells) if cells else ""
