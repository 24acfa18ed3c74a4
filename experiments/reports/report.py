"""The page of all results, made from the committed rows alone.

Its numbers are links to their rows. `markdown` resolves them to lines of the files, `report_html.to_html` to the rows
themselves, which the page then contains.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ddf_jax.files import make_folder, write_atomically
from experiments.reports import docs_tables, numbers, report_figures
from experiments.reports import score_tables as scores
from experiments.reports import speed_tables as speed
from experiments.reports.blocks import Block, Heading, Picture, Table, Text
from experiments.reports.numbers import Wrong, located_rows
from experiments.reports.report_html import to_html
from experiments.reports.results import RESULTS
from experiments.reports.row_files import row_sets
from experiments.reports.shown import LINK, Value, plain, value

ROOT = RESULTS.parents[1]
GPU = speed.GPU


class Section(NamedTuple):
    """A part of the page; without one of its files it names the command that measures them."""

    title: str
    files: tuple[str, ...]
    command: str
    blocks: Callable[[], Iterator[Block]]


def blocks() -> Iterator[Block]:
    """The page in its order."""
    yield Heading("Results")
    yield Text(
        "Made by `make report` from the rows in `experiments/results` alone; each number links to its row. A page "
        "whose numbers differ from the rows fails the tests."
    )
    for section in SECTIONS:
        yield Heading(section.title)
        missing = [file for file in section.files if not (RESULTS / file).is_file()]
        if missing:
            yield Text(f"No rows of it are committed yet. {section.command}")
        else:
            yield from section.blocks()


def markdown(page: Path) -> str:
    """The page as Markdown with pictures in a folder of its name.

    Args:
        page: where it will be.
    """
    results = "/".join([".."] * len(page.resolve().parent.relative_to(ROOT).parts)) + "/experiments/results"

    def link(found: re.Match[str]) -> str:
        text, file, lines = found.groups()
        return f"[{text}]({results}/{file}#L{lines.partition(',')[0]})"

    parts, level = [], "#"
    for block in blocks():
        match block:
            case Heading(text):
                parts.append(f"{level} {text}")
                level = "##"
            case Text(text) | Table(text):
                parts.append(LINK.sub(link, text).rstrip())
            case Picture(name, alt, _):
                parts.append(f"![{alt}]({page.stem}/{name}.svg)")
    return "\n\n".join(parts) + "\n"


def write(page: Path, html: Path) -> list[Path]:
    """Writes the page, its pictures and the HTML file; the files."""
    folder = page.with_suffix("")
    make_folder(folder)
    make_folder(html.parent)
    written = {folder / f"{block.name}.svg": block.svg(False) for block in blocks() if isinstance(block, Picture)}
    written |= {page: markdown(page), html: to_html(list(blocks()))}
    for path, text in written.items():
        write_atomically(path, text)
    return list(written)


def check_pages(*, write: bool = False, root: Path = ROOT) -> list[Wrong]:
    """What is wrong with the numbers of README and the documentation; the page of results is checked as a whole.

    Args:
        write: replace the numbers and tables by those of the rows.
        root: of the checkout.
    """
    tables = {name: (lambda make=make: plain(make())) for name, make in docs_tables.TABLES.items()}
    found = []
    for page in numbers.pages(root):
        name, text = page.relative_to(root).as_posix(), page.read_text()
        if page == root / "docs" / "report.md":
            if text != markdown(page):
                found.append(Wrong(name, 1, "not made from today's rows: make report"))
            continue
        corrected, wrong = numbers.check(name, text, tables)
        found += wrong
        if write and corrected != text:
            write_atomically(page, corrected)
    return found


def _sets() -> Iterator[Block]:
    yield Table(row_sets())


def _operator_cpu() -> Iterator[Block]:
    yield Text(
        "Milliseconds and (MiB) of one call, float32, K = 3, next to PyTorch's `unfold` formulation; medians of "
        "programs that take turns, as everywhere on this page."
    )
    yield Table(speed.operator_cpu())


def _scaling() -> Iterator[Block]:
    yield Picture(
        "latency",
        "Milliseconds of the operator, of unfold and of a depthwise convolution, all in JAX, against an image's height",
        report_figures.latency,
    )
    yield Picture(
        "memory",
        "MiB of arguments, results and temporaries of the same against the filter size K",
        report_figures.memory,
    )
    yield Text(
        "The operator multiplies and adds B·H·W·C·K² times (Zhou et al., CVPR 2021, Table 1), whatever the number of "
        "groups. Exponents of its cost are fitted by least squares in the logarithms, with their standard errors; "
        "operations are those of the compiled program. XLA computes depthwise convolutions slowly on a CPU; that of "
        "PyTorch takes less time than the operator (`torch_depthwise` in `operator_cpu.csv`)."
    )
    yield Table(speed.scaling())


def _operator_gpu() -> Iterator[Block]:
    checks = [row for row, _ in located_rows(GPU) if row.get("part") == "checks" and row.get("passed")]
    lines = tuple(line for row, line in located_rows(GPU) if row in checks)
    yield Text(
        f"Microseconds, bfloat16. Before, {Value(len(checks), GPU, lines).show('.0f')} checks of values and gradients "
        "against float64 passed."
    )
    yield Table(speed.operator_gpu())


def _roofline() -> Iterator[Block]:
    copy = value(GPU, "bytes_per_second", implementation="copy")
    assert copy is not None
    yield Text(
        f"Forward kernels, bfloat16. The roof is a copy, measured at {(copy / 1e12).show('.2f', ' TB/s')}; predicted "
        "points are those of a simulation of the machine code, hollow; measured ones are filled."
    )
    yield Picture(
        "roofline",
        "Operations a second against operations per byte of the forward kernels, predicted and measured, under the "
        "bandwidth of a copy",
        report_figures.roofline,
    )
    yield Table(speed.predicted_kernels())


def _layers() -> Iterator[Block]:
    yield Text("Each layer in place of a 3×3 convolution of 128 channels, two feature maps of 28×28, float32.")
    yield Table(speed.layer_cpu())


def _networks() -> Iterator[Block]:
    yield Text("On a CPU, 8 images of 224×224, float32, next to the PyTorch port:")
    yield Table(speed.model_cpu())
    yield Text("Training steps on a GPU, 128 images of 224×224, bfloat16:")
    yield Table(speed.steps_gpu())
    yield Text("Small networks of each paper, trained on 8×8 digits on a CPU:")
    yield Table(scores.digits())


def _only(make: Callable[[], str], text: str) -> Callable[[], Iterator[Block]]:
    def blocks() -> Iterator[Block]:
        yield Text(text)
        yield Table(make())

    return blocks


SECTIONS = (
    Section("Operator on a CPU", ("operator_cpu.csv",), "`ddf bench operator` measures them.", _operator_cpu),
    Section("Growth of cost", ("scaling_cpu.csv",), "`ddf bench scaling` measures them.", _scaling),
    Section("Operator on a GPU", (GPU,), "`python -m experiments.gpu_suite` measures them.", _operator_gpu),
    Section("Roofline", (GPU, "kernels/kernels.json"), "`python -m experiments.kernels` predicts them.", _roofline),
    Section("Layers", ("layer_cpu.csv",), "`ddf bench layer --against torch` measures them.", _layers),
    Section("Networks", ("model_cpu.csv", GPU), "`ddf bench model --against torch` measures them.", _networks),
    Section(
        "Detector next to PyTorch",
        ("detection_cpu.csv",),
        "`ddf bench detection --against torch` measures them.",
        _only(speed.detection_cpu, "Faster R-CNN with ResNet-50-FPN on a CPU, 400×608 pixels, milliseconds:"),
    ),
    Section(
        "Detector next to torchvision",
        ("detection_torchvision.csv",),
        "`python -m experiments.benchmarks.detection_cpu --python PYTHON` measures them.",
        _only(
            speed.detection_torchvision,
            "Faster R-CNN with ResNet-50-FPN on a CPU, 800×1216 pixels, 1000 proposals, milliseconds:",
        ),
    ),
    Section(
        "Input",
        ("input_cpu.csv",),
        "`ddf bench input` measures them.",
        _only(speed.input_cpu, "Random crops of 224×224 from JPEGs, per core and second:"),
    ),
    Section(
        "Serving",
        ("serving.csv",),
        "`python -m experiments.benchmarks.serving RUN` measures them.",
        _only(speed.serving, "50 clients at once, 30 of them with good images:"),
    ),
    Section(
        "Compilation",
        ("compile_cpu.csv",),
        "`ddf bench compile` measures them.",
        _only(speed.compilation, "Lowering and compilation on a CPU, without any cache:"),
    ),
    Section(
        "Parity with PyTorch",
        ("verify/ddf_resnet50.txt",),
        "`ddf verify` prints them.",
        _only(scores.parity, "The largest relative errors of the Flax models against independent PyTorch ports:"),
    ),
    Section(
        "Published tables",
        ("tables/tables.csv",),
        "`python -m experiments.tables` counts them.",
        _only(
            scores.published,
            "Parameters and multiply-accumulates, counted on the networks, against the printed digits of the papers; "
            "each cell that is not equal has its reason in the rows. Accuracies are as published, not measured here.",
        ),
    ),
    Section(
        "Joint depth upsampling",
        ("depth/depth.json",),
        "`make depth` measures them.",
        _only(scores.depth, "RMSE in centimetres; NYU Depth v2 as published, rooms measured here:"),
    ),
    Section(
        "Detection on rendered rooms",
        ("detection/rooms_panoptic.json",),
        "`make detect` measures them.",
        _only(scores.detection, "Percent; parameters start at random, and 1,280 images are few:"),
    ),
    Section(
        "Robustness",
        ("robustness/furniture.json",),
        "`make robustness` measures them.",
        _only(scores.robustness, "Top-1 errors in percent on `furniture`, by family of corruptions:"),
    ),
    Section(
        "Sharded training steps",
        ("plan/meshes.json",),
        "`ddf plan` compiles them.",
        _only(scores.meshes, "Compiled for 8 H200, not run; GiB on a device:"),
    ),
    Section(
        "Faults",
        ("faults.jsonl",),
        "`python -m tests.faults --out experiments/results/faults.jsonl` measures them.",
        _only(
            scores.faults,
            "Runs on `digits` under all groups of options that met a fault, drawn from a seed; as expected are those "
            "that lost nothing, said what happened in one line, and were resumed to the same bits:",
        ),
    ),
    Section("Sets of rows", (), "", _sets),
)
