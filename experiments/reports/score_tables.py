"""The tables of scores and counts that the documentation and the report show, made from rows."""

from collections.abc import Iterator
from typing import Any

from experiments.reports.numbers import Located, located_rows
from experiments.reports.results import RESULTS
from experiments.reports.shown import Value, need, table, value

METHODS = {
    "bicubic": ("bicubic", (8.16, 14.22, 22.32)),
    "Markov random field": ("Markov random field", (7.84, 13.98, 22.20)),
    "guided filter": ("guided filter", (7.32, 13.62, 22.03)),
    "static/dynamic filter": ("static/dynamic filter", (5.27, 12.31, 19.24)),
    "fast bilateral solver": ("fast bilateral solver", (4.29, 8.94, 14.59)),
    "joint bilateral": ("joint bilateral", (4.07, 8.29, 13.35)),
    "dmsg": ("DMSG", (3.78, 6.37, 11.16)),
    "djf": ("DJF", (3.54, 6.20, 10.21)),
    "djf_plus": ("DJF+", (3.38, 5.86, 10.11)),
    "pac_net": ("PAC-Net", (2.39, 4.59, 8.09)),
    "ddf_up_net": ("DDF-Up-Net", (2.16, 4.40, 7.72)),
}
"""Titles, and RMSE in centimetres as Zhou et al., CVPR 2021, Table 7 prints it for NYU Depth v2 by 4, 8 and 16."""


def depth() -> str:
    """RMSE by method and scale: published, and of the rows."""

    def cells(method: str) -> Iterator[str]:
        title, published = METHODS[method]
        yield title
        yield ", ".join(f"{rmse:.2f}" for rmse in published)
        files = (f"depth/depth{suffix}.json" for suffix in ("", "_8x", "_16x"))
        found = [value(file, "rmse_cm", method=method) for file in files]
        cells = [rmse.show(".2f") if rmse else "not yet run" for rmse in found]
        yield ", ".join(cells) if any(found) else "not yet run"

    heads = ["method", "NYU by 4, 8, 16, published", "rooms by 4, 8, 16"]
    return table(heads, ([*cells(method)] for method in METHODS))


def robustness() -> str:
    """Errors in percent by family of corruptions."""
    file = "robustness/furniture.json"

    def cells(run: str, row: dict, line: int) -> Iterator[str]:
        yield run
        errors = [1 - row["test_accuracy"], *row["families"].values(), row["mean_corruption_error"]]
        yield from (Value(100 * error, file, (line,)).show(".1f") for error in errors)

    rows = located_rows(file)
    heads = ["run", "clean", *rows[0].row["families"], "mean corruption error"]
    return table(heads, ([*cells(row["name"], row, line)] for row, line in rows))


def detection() -> str:
    """Scores in percent of the detectors that are trained on rendered rooms."""
    file = "detection/rooms_panoptic.json"
    columns = {"box AP": "test_box_ap", "box AP50": "test_box_ap50", "mask AP": "test_mask_ap"}
    columns |= {"mask AP50": "test_mask_ap50", "PQ": "test_pq"}

    def cells(run: str) -> Iterator[str | None]:
        yield run
        for column in columns.values():
            score = value(file, column, run=run)
            yield score and (score * 100).show(".1f")
        yield need(file, "seconds", run=run).show(".0f")

    return table(["run", *columns, "seconds"], ([*cells(row["run"])] for row, _ in located_rows(file)))


def digits() -> str:
    """The small networks on digits: accuracy and speed of training."""
    files = sorted(path.name for path in RESULTS.glob("digits*.json"))

    def cells(file: str) -> Iterator[str]:
        row, _ = located_rows(file)[0]
        yield from (row["name"], row["model"])
        yield need(file, "parameters").show(",.0f")
        yield (need(file, "test_accuracy") * 100).show(".2f", " %")
        yield need(file, "images_per_second").show(",.0f")
        yield need(file, "seconds").show(".0f")

    heads = ["run", "model", "parameters", "test accuracy", "images/s in training", "seconds"]
    return table(heads, ([*cells(file)] for file in files), left=2)


def parity() -> str:
    """The largest relative errors of each model against its port, as `ddf verify` prints them."""
    file = "verify/*.txt"
    kinds = ("evaluation", "training", "loss", "gradient", "statistics", "step", "tolerance")

    def cells(row: dict[str, Any], name: str, line: int) -> Iterator[str]:
        yield from (f"`{row['model']}`", row["dtype"], row["size"])
        yield from (
            Value(float(row[kind]), name, (line,)).show(".0e" if kind == "tolerance" else ".1e") for kind in kinds
        )
        yield row["verdict"]

    names = [path.relative_to(RESULTS).as_posix() for path in sorted(RESULTS.glob(file))]
    rows = [(row, name, line) for name in names for row, line in located_rows(name)]
    return table(["model", "dtype", "size", *kinds, "verdict"], ([*cells(*row)] for row in rows), left=3)


def published() -> str:
    """How many counts of each published table are equal at the printed digits."""
    file = "tables/tables.csv"
    rows = [row for row in located_rows(file) if row.row["computed"] and row.row["published"]]

    def number(found: list[Located]) -> str:
        return Value(len(found), file, tuple(row.line for row in found)).show(".0f") if found else "0"

    def cells(name: str) -> Iterator[str]:
        of_it = [row for row in rows if row.row["table"] == name]
        equal = [row for row in of_it if row.row["equal"] == "True"]
        yield from (name, number(of_it), number(equal), number([row for row in of_it if row not in equal]))

    names = dict.fromkeys(row.row["table"] for row in rows)
    return table(["table", "counts", "equal", "not equal"], ([*cells(name)] for name in names))


def meshes() -> str:
    """A sharded training step as compiled, by network and mesh."""
    file = "plan/meshes.json"
    heads = ["network", "mesh", "arguments", "temporaries", "all-reduces", "all-gathers", "reduce-scatters", "kernels"]

    def cells(index: int) -> Iterator[str]:
        row, line = located_rows(file)[index]

        def number(*path: str) -> Value:
            found = row
            for name in path:
                found = found[name]
            return Value(float(found), file, (line,))  # pyright: ignore[reportArgumentType]

        options = "".join(f", {name}" for name, given in row.get("model_options", {}).items() if given)
        yield row["recipe"].removeprefix("imagenet_") + options
        axis, size = max(row["mesh"].items(), key=lambda item: item[1])
        yield f"{axis} {size}"
        for name in ("arguments", "temporaries"):
            yield (number("bytes_per_device", name) / 2**30).show(".2f")
        for name in ("all_reduce", "all_gather", "reduce_scatter"):
            yield number("collectives", name).show(".0f")
        yield number("launches", "total", "launches").show(",.0f")
        yield (number("launches", "total", "roofline_us") / 1e3).show(".1f")

    return table([*heads, "lower bound, ms"], ([*cells(index)] for index in range(len(located_rows(file)))), left=2)


FAULTS = {
    "kill": "SIGKILL in any phase",
    "signal": "SIGTERM, SIGINT and others in any phase",
    "power": "power cut: only what was synchronised remains",
    "file": "an operation on a file fails: full disk, quota, lost file system",
    "damage": "a damaged checkpoint, summary or data file",
    "change": "another recipe or other data at the second launch",
    "lock": "two launches in one folder",
    "process": "one of two processes is lost",
    "reader": "a reader while checkpoints are written and removed",
}
"""Of `tests.faults`, by kind."""


def faults() -> str:
    """Faults by kind, and how many ended as they should."""
    file, rows = "faults.jsonl", located_rows("faults.jsonl")

    def cells(kind: str) -> Iterator[str]:
        lines = tuple(line for row, line in rows if row["kind"] == kind)
        yield FAULTS[kind]
        yield Value(len(lines), file, lines).show(".0f")
        yield Value(sum(row["ok"] for row, _ in rows if row["kind"] == kind), file, lines).show(".0f")

    return table(["fault", "number", "as expected"], ([*cells(kind)] for kind in FAULTS))
