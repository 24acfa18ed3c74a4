"""Our counts against the published ones, cell by cell."""

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ddf_jax.analysis.counting import Complexity, complexity
from ddf_jax.analysis.published import TABLES, UPSAMPLER_ROWS, PaperRow
from ddf_jax.layers import DDF, Conv
from ddf_jax.models.fpn import FPN
from ddf_jax.models.registry import create, get_config
from ddf_jax.models.resnet import ResNetConfig

_OPERATORS, _UPSAMPLERS = "DDF, Table 1", "DDF, Table 6"
NAMES = (_OPERATORS, *TABLES, _UPSAMPLERS)
SIZE = (224, 224)
DETECTION_IMAGE = (1, 800, 1333, 3)


class Cell(NamedTuple):
    """One number of a table."""

    table: str
    row: str
    column: str
    published: float
    computed: float | None
    """None where the row is not implemented here."""
    equal: bool | None
    """Whether ours has the published digits, rounded or truncated; None where there is no number of ours."""
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
    if fnmatch.fnmatch(_UPSAMPLERS, tables):
        yield from _upsamplers()


def markdown(cells: Sequence[Cell]) -> str:
    """The cells as Markdown tables, with the number of equal ones."""
    lines = []
    for table, rows in itertools.groupby(cells, lambda cell: cell.table):
        lines += [f"### {table}", "", "| row | column | published | ours | | note |", "|---|---|--:|--:|---|---|"]
        for cell in rows:
            ours = "" if cell.computed is None else f"{cell.computed:,}"
            mark = {True: "✓", False: "✗", None: ""}[cell.equal]
            lines.append(f"| {cell.row} | {cell.column} | {cell.published:,} | {ours} | {mark} | {cell.note} |")
        lines.append("")
    ours = [cell for cell in cells if cell.equal is not None]
    return "\n".join([*lines, f"{sum(bool(cell.equal) for cell in ours)} of {len(ours)} numbers are equal."])


@functools.cache
def count(model: str, options: tuple[tuple[str, Any], ...] = ()) -> Complexity:
    """The size of a registered model, for one image of 224×224 pixels."""
    config = get_config(model, **dict(options))
    if isinstance(config, ResNetConfig):
        return _count_resnet(config)
    abstract = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    return complexity(abstract, *config.inputs(*SIZE))


def _count_resnet(config: ResNetConfig) -> Complexity:
    """All blocks of a stage but the first are equal: the second one is traced for all of them."""
    shallow = dataclasses.replace(config, blocks=tuple(min(depth, 2) for depth in config.blocks))
    total, repeated = _count_shallow(shallow)
    for stage, block in repeated.items():
        total += (config.blocks[stage] - 1) * block
    return total


@functools.cache  # networks of one family and different depths are equal when shallow
def _count_shallow(config: ResNetConfig) -> tuple[Complexity, dict[int, Complexity]]:
    """The size of a network with the first block of each stage, and of the second block of each that has one."""
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    repeated = {}
    for stage, (blocks, (channels, stride)) in enumerate(zip(model.stages, model.feature_info, strict=True)):
        if len(blocks) == 2:
            size = (-(-length // stride) for length in SIZE)
            repeated[stage] = complexity(blocks.pop(), jax.ShapeDtypeStruct((1, *size, channels), config.dtype))
    return complexity(model, *config.inputs(*SIZE)), repeated


def has_digits(value: float, printed: str) -> bool:
    """Whether the printed number is the value, rounded or truncated to its digits.

    >>> has_digits(2.148, "2.1"), has_digits(2.148, "2.15"), has_digits(2.148, "2.2")
    (True, True, False)
    """
    digits = len(printed.partition(".")[2])
    truncated = int(value * 10**digits) / 10**digits
    return printed in (f"{value:.{digits}f}", f"{truncated:.{digits}f}")


def _cells(table: str, row: PaperRow) -> Iterator[Cell]:
    printed = {"parameters (M)": row.params_millions, "FLOPs (G)": row.macs_billions}
    if row.model is None:
        note = "not built here"
        yield from (
            Cell(table, row.label, column, float(text), None, None, note) for column, text in printed.items() if text
        )
        return
    counts = count(row.model, tuple(row.options.items()))
    ours: dict[str, Mapping[str, float]] = {
        "parameters (M)": {"": counts.params / 1e6},
        "FLOPs (G)": {"core": counts.macs_core / 1e9, "mmcv": counts.macs_mmcv / 1e9},
    }
    for column, text in printed.items():
        yield _nearest(table, row.label, column, text, ours[column], row.why)


def _nearest(table: str, row: str, column: str, printed: str, ours: Mapping[str, float], why: str) -> Cell:
    def rank(convention: str) -> tuple[bool, float]:
        return not has_digits(ours[convention], printed), abs(ours[convention] - float(printed))

    convention = min(ours, key=rank)
    equal = has_digits(ours[convention], printed)
    note = "; ".join(filter(None, (convention, "" if equal else why)))
    return Cell(table, row, column, float(printed), round(ours[convention], 4), equal, note)


def _operators() -> Iterator[Cell]:
    """DDF's Table 1, formulas, for 256 channels, K = 3 and σ = 0.2."""
    channels, taps, ratio = 256, 9, 0.2
    full, depthwise = channels**2 * taps, channels * taps
    rows = {
        "Conv": (full, lambda rngs: Conv(channels, channels, rngs=rngs), ""),
        "DwConv": (depthwise, lambda rngs: Conv(channels, channels, groups=channels, rngs=rngs), ""),
        "DyFilter": (channels * full, None, "not built here"),
        "DDF": (
            round(channels * taps + ratio * channels**2 * (1 + taps)),
            lambda rngs: DDF(channels, squeeze_ratio=ratio, rngs=rngs),
            "the formula leaves out the biases and the learned scales, and does not round σc down",
        ),
    }
    for row, (published, make, why) in rows.items():
        computed = None
        if make is not None:
            state = nnx.state(nnx.eval_shape(lambda make=make: make(nnx.Rngs(0))), nnx.Param)
            computed = sum(leaf.size for leaf in jax.tree.leaves(state))
        equal = None if computed is None else computed == published
        yield Cell(_OPERATORS, row, "parameters", published, computed, equal, "" if equal else why)


def _upsamplers() -> Iterator[Cell]:
    """DDF's Table 6: the cost of the three upsamplers of an FPN on ResNet-50, P5 to P4, P4 to P3 and P3 to P2."""
    backbone: Any = nnx.eval_shape(lambda: create("resnet50", rngs=nnx.Rngs(0)))
    backbone.eval()
    image = jax.ShapeDtypeStruct(DETECTION_IMAGE, jnp.float32)
    features = nnx.eval_shape(lambda backbone, image: backbone.features(image), backbone, image)
    for row in UPSAMPLER_ROWS:
        fpn = nnx.eval_shape(lambda row=row: FPN(backbone.feature_info, upsampler=row.upsampler, rngs=nnx.Rngs(0)))
        maps = [jax.ShapeDtypeStruct((*feature.shape[:3], fpn.channels), jnp.float32) for feature in features[1:]]
        counts = [complexity(upsampler, below) for upsampler, below in zip(fpn.upsamplers, maps, strict=True)]
        ours = {
            "core": sum(counted.macs_core for counted in counts) / 1e9,
            "mmcv": sum(counted.macs_mmcv for counted in counts) / 1e9,
        }
        yield _nearest(_UPSAMPLERS, row.label, "FLOPs (G)", row.macs_billions, ours, row.why)
