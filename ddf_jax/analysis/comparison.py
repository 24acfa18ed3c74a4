"""Our counts against the published ones, cell by cell."""

import decimal
import fnmatch
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.analysis.counting import Complexity, complexity, total
from ddf_jax.analysis.detector_counting import DetectorComplexity, count_detector
from ddf_jax.analysis.published import TABLES, UPSAMPLER_ROWS, PaperRow
from ddf_jax.analysis.published_detectors import DETECTOR_TABLES, DetectorRow, DetectorTable
from ddf_jax.analysis.resnet_counting import resnet_parts, san_complexity
from ddf_jax.layers import DDF, Conv, FullDynamicFilter
from ddf_jax.models.detectors import DetectorConfig
from ddf_jax.models.fpn import FPN
from ddf_jax.models.registry import get_config
from ddf_jax.models.resnet import FeatureInfo, ResNetConfig
from ddf_jax.models.san import SANConfig

_OPERATORS, _UPSAMPLERS = "DDF, Table 1", "DDF, Table 6"
NAMES = (_OPERATORS, *TABLES, *DETECTOR_TABLES, _UPSAMPLERS)
COUNTS = ("parameters", "parameters (M)", "FLOPs (G)")
"""The columns that are counted; the others are accuracies."""
SIZE = (224, 224)
DETECTION_SIZE = (800, 1280)


class Cell(NamedTuple):
    """One number of a table."""

    table: str
    row: str
    column: str
    published: float | None
    """None where the paper counts nothing."""
    computed: float | None
    """None where the row is not implemented here, and of accuracies."""
    equal: bool | None
    """Whether ours has the published digits: rounded, or truncated or rounded twice, as the note then states; None
    without both."""
    note: str


def compare(tables: str = "*") -> Iterator[Cell]:
    """The cells of all tables whose name matches a shell-style pattern, in the papers' units.

    Every number is counted from the module itself, without allocating arrays. A cell shows the convention of
    multiply-accumulates with the published digits, or else the nearer one.
    """
    if fnmatch.fnmatch(_OPERATORS, tables):
        yield from _operators()
    for table in fnmatch.filter(TABLES, tables):
        for row in TABLES[table]:
            yield from _cells(table, row)
    for table in fnmatch.filter(DETECTOR_TABLES, tables):
        for row in DETECTOR_TABLES[table].rows:
            yield from _detector_cells(table, DETECTOR_TABLES[table], row)
    if fnmatch.fnmatch(_UPSAMPLERS, tables):
        yield from _upsamplers()


def markdown(cells: Sequence[Cell]) -> str:
    """The cells as Markdown tables, with the number of equal ones."""
    lines = []
    for table, of_table in itertools.groupby(cells, lambda cell: cell.table):
        rows = list(of_table)
        lines += [f"### {table}", "", "| row | column | published | ours | | note |", "|---|---|--:|--:|---|---|"]
        for cell in rows:
            if cell.column in COUNTS:
                printed, ours = ("" if value is None else f"{value:,}" for value in (cell.published, cell.computed))
                mark = {True: "✓", False: "✗", None: ""}[cell.equal]
                lines.append(f"| {cell.row} | {cell.column} | {printed} | {ours} | {mark} | {cell.note} |")
        lines += ["", *_accuracies(rows)]
    ours = [cell for cell in cells if cell.equal is not None]
    return "\n".join([*lines, f"{sum(bool(cell.equal) for cell in ours)} of {len(ours)} numbers are equal."])


def _accuracies(cells: Sequence[Cell]) -> list[str]:
    """A Markdown table of the accuracies, if there are some: a line for each row."""
    rows: dict[str, dict[str, float | None]] = {}
    for cell in cells:
        if cell.column not in COUNTS:
            rows.setdefault(cell.row, {})[cell.column] = cell.published
    if not rows:
        return []
    columns = max(rows.values(), key=len)
    lines = [f"| row, as published | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    lines += [
        f"| {row} | {' | '.join(str(of_row.get(name, '')) for name in columns)} |" for row, of_row in rows.items()
    ]
    return [*lines, ""]


@functools.cache
def _count_detector(model: str, options: tuple[tuple[str, Any], ...]) -> DetectorComplexity:
    return count_detector(get_config(model, **dict(options)))


@functools.cache
def count(model: str, options: tuple[tuple[str, Any], ...] = ()) -> Complexity:
    """The size of a registered model, for one image of 224×224 pixels; of a detector, as in `detector_counting`."""
    config = get_config(model, **dict(options))
    if isinstance(config, ResNetConfig):
        return total(resnet_parts(config, SIZE).values())
    if isinstance(config, SANConfig):
        return san_complexity(config, SIZE)
    if isinstance(config, DetectorConfig):
        return _count_detector(model, options).total
    abstract = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    return complexity(abstract, *config.inputs(*SIZE))


def has_digits(value: float, printed: str) -> bool:
    """Whether the printed number is the value, rounded or truncated to its digits.

    >>> has_digits(2.148, "2.1"), has_digits(2.148, "2.15"), has_digits(2.148, "2.2")
    (True, True, False)
    """
    digits = len(printed.partition(".")[2])
    truncated = int(value * 10**digits) / 10**digits
    return printed in (f"{value:.{digits}f}", f"{truncated:.{digits}f}")


def how_printed(value: float, printed: str) -> str | None:
    """How the printed number follows from the value: "", rounded; "truncated"; "rounded twice", to two digits first;
    None, not at all.

    >>> how_printed(2.648, "2.6"), how_printed(2.648, "2.7"), how_printed(2.66, "2.6"), how_printed(2.648, "2.8")
    ('', 'rounded twice', 'truncated', None)
    """
    digits = len(printed.partition(".")[2])
    if printed == f"{value:.{digits}f}":
        return ""
    if has_digits(value, printed):
        return "truncated"
    return "rounded twice" if printed == rounded_twice(round(value * 10**9), 10**9, digits) else None


def _cells(table: str, row: PaperRow) -> Iterator[Cell]:
    printed = {"parameters (M)": row.params_millions, "FLOPs (G)": row.macs_billions}
    if row.model is None:
        note = f"not built here; {row.why}" if row.why else "not built here"
        yield from (
            Cell(table, row.label, column, float(text), None, None, note) for column, text in printed.items() if text
        )
        return
    counts = count(row.model, tuple(row.options.items()))
    ours: dict[str, Mapping[str, float]] = {
        "parameters (M)": {"": counts.params / 1e6},
        "FLOPs (G)": {name: getattr(counts, f"macs_{name}") / 1e9 for name in row.conventions},
    }
    for column, text in printed.items():
        if text:
            yield _nearest(table, row.label, column, text, ours[column], row.why)


def _nearest(table: str, row: str, column: str, printed: str, ours: Mapping[str, float], why: str) -> Cell:
    def rank(convention: str) -> tuple[int, float]:
        how = how_printed(ours[convention], printed)
        return ("", "truncated", "rounded twice", None).index(how), abs(ours[convention] - float(printed))

    convention = min(ours, key=rank)
    how = how_printed(ours[convention], printed)
    note = "; ".join(filter(None, (convention, why if how is None else how)))
    return Cell(table, row, column, float(printed), round(ours[convention], 4), how is not None, note)


def rounded_twice(value: int, unit: int, digits: int) -> str:
    """A count in a larger unit with as many digits, of mmcv's two digits: both rounded half up.

    >>> rounded_twice(26_246_276, 10**6, 1), rounded_twice(33_920_000, 10**6, 0)
    ('26.3', '34')
    """
    number = decimal.Decimal(value) / unit
    for places in (2, digits):
        number = number.quantize(decimal.Decimal(1).scaleb(-places), decimal.ROUND_HALF_UP)
    return str(number)


def _detector_cells(name: str, table: DetectorTable, row: DetectorRow) -> Iterator[Cell]:
    counts = _count_detector(row.model, tuple(row.options.items()))
    params = counts.trainable_params if table.params == "trainable" else counts.total.params
    counted = counts.total_without(row.uncounted)
    macs = counted.macs_mmcv + (counted.macs_dynamic if table.macs != "mmcv" else 0)
    left_out = f"without {' and '.join(row.uncounted)}" if row.uncounted else ""
    for column, printed, ours, unit, convention in (
        ("parameters (M)", row.params_millions, params, 10**6, table.params),
        ("FLOPs (G)", row.macs_billions, macs, 10**9, "; ".join(filter(None, (table.macs, left_out)))),
    ):
        equal = rounded_twice(ours, unit, len(printed.partition(".")[2])) == printed if printed else None
        note = f"{convention}; {table.why}" if equal is False else convention
        yield Cell(name, row.label, column, float(printed) if printed else None, round(ours / unit, 4), equal, note)
    for column, printed in zip(table.columns, row.accuracies, strict=False):
        yield Cell(name, row.label, column, float(printed), None, None, "as published, in percent")


def _operators() -> Iterator[Cell]:
    """DDF's Table 1, for 256 channels, K = 3 and σ = 0.2."""
    channels, taps, ratio = 256, 9, 0.2
    rows = {
        "Conv": (589_824, lambda rngs: Conv(channels, channels, rngs=rngs), ""),
        "DwConv": (2_304, lambda rngs: Conv(channels, channels, groups=channels, rngs=rngs), ""),
        "DyFilter": (150_994_944, lambda rngs: FullDynamicFilter(channels, rngs=rngs), ""),
        "DDF": (
            133_376,
            lambda rngs: DDF(channels, squeeze_ratio=ratio, rngs=rngs),
            "the formula leaves out the biases and the learned scales, and does not round σc down",
        ),
    }
    for row, (published, make, why) in rows.items():
        state = nnx.state(nnx.eval_shape(lambda make=make: make(nnx.Rngs(0))), nnx.Param)
        computed = sum(leaf.size for leaf in jax.tree.leaves(state))
        equal = computed == published
        yield Cell(_OPERATORS, row, "parameters", published, computed, equal, "" if equal else why)
    formula = round(channels * taps + ratio * channels**2 * (1 + taps))
    yield Cell(_OPERATORS, "DDF, formula", "parameters", 133_376, formula, formula == 133_376, "ck² + σc²(1 + k²)")


def _upsamplers() -> Iterator[Cell]:
    """DDF's Table 6: the cost of the four upsamplers of an FPN on P2 to P6, from the map of P6 to that of P2."""
    levels = [FeatureInfo(channels=256, stride=2**level) for level in range(2, 7)]
    for row in UPSAMPLER_ROWS:
        fpn = nnx.eval_shape(lambda row=row: FPN(levels, upsampler=row.upsampler, rngs=nnx.Rngs(0)))
        sizes = [[-(-side // level.stride) for side in DETECTION_SIZE] for level in levels[1:]]
        maps = [jax.ShapeDtypeStruct((1, *size, fpn.channels), jnp.float32) for size in sizes]
        counts = [complexity(upsampler, below) for upsampler, below in zip(fpn.upsamplers, maps, strict=True)]
        ours = {
            "core": sum(counted.macs_core for counted in counts) / 1e9,
            "mmcv": sum(counted.macs_mmcv for counted in counts) / 1e9,
        }
        yield _nearest(_UPSAMPLERS, row.label, "FLOPs (G)", row.macs_billions, ours, row.why)
