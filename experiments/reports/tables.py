"""Recomputes the papers' tables from this project's modules: `python -m experiments.tables`.

Writes Markdown, CSV and a plot of published accuracies against our counts to `experiments/results/tables/`.
Takes a minute; nothing is trained.
"""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ddf_jax.analysis.comparison import Cell, compare, count, markdown
from ddf_jax.analysis.published import PUBLISHED
from experiments.reports.results import RESULTS

FOLDER = RESULTS / "tables"

# The plot's lines: the networks of a family by depth.
FAMILIES = {
    "ResNet": ("resnet26", "resnet38", "resnet50", "resnet101"),
    "RedNet": ("rednet26", "rednet38", "rednet50", "rednet101"),
    "DDF-ResNet": ("ddf_resnet18", "ddf_resnet38", "ddf_resnet50", "ddf_resnet101"),
    "BiNet (dc)": ("binet38", "binet50", "binet101"),
    "BiNet (dc-ca)": ("binet38_dc_ca", "binet50_dc_ca", "binet101_dc_ca"),
    "DCDC-ResNet": ("dcdc_resnet26", "dcdc_resnet38", "dcdc_resnet50", "dcdc_resnet101"),
    "SE": ("se_resnet50", "se_resnet101"),
    "CBAM": ("cbam_resnet50", "cbam_resnet101"),
    "BAM": ("bam_resnet50", "bam_resnet101"),
    "AA": ("aa_resnet50", "aa_resnet101"),
    "ResNeXt": ("resnext50_32x4d", "resnext101_32x4d"),
    "Res2Net": ("res2net50_26w_4s", "res2net101_26w_4s"),
    "SAN (pairwise)": ("san10", "san15", "san19"),
    "SAN (patchwise)": ("san10_patchwise", "san15_patchwise", "san19_patchwise"),
    "FcaNet": ("fca_resnet50", "fca_resnet101"),
    "SASA": ("sasa_resnet26", "sasa_resnet38", "sasa_resnet50"),
    "LR-Net": ("lrnet26", "lrnet50", "lrnet101"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.tables", description=__doc__)
    parser.add_argument(
        "pattern", nargs="?", default="*", help="names of tables, a shell pattern such as 'DCDC*' (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print the cells as JSON and write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    cells = list(compare(chosen.pattern))
    if not cells:
        print(f"No table's name matches {chosen.pattern!r}.", file=sys.stderr)
        return 2
    if chosen.json:
        print(json.dumps([cell._asdict() for cell in cells], indent=2, ensure_ascii=False))
        return 0
    write(cells, chosen.folder)
    print(markdown(cells))
    return 0


def write(cells: Sequence[Cell], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tables.md").write_text(f"# The papers' numbers and ours\n\n{markdown(cells)}\n")
    with open(folder / "tables.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Cell._fields)
        writer.writerows(cells)
    draw(folder / "accuracy.png")


def draw(path: Path) -> None:
    """ImageNet top-1 accuracy as published, against our parameters and multiply-accumulates."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [*(f"C{index}" for index in range(10)), "black", "gold", "navy", "lime", "salmon", "teal", "maroon"]
    for position, (family, models) in enumerate(FAMILIES.items()):
        accuracy = [PUBLISHED[model].imagenet_top1 for model in models]
        counts = [count(model) for model in models]
        style = {"marker": "o" if position < 6 else "x", "linestyle": "-" if position < 6 else ":", "label": family}
        left.plot([size.params / 1e6 for size in counts], accuracy, color=colours[position], **style)
        right.plot([size.macs_core / 1e9 for size in counts], accuracy, color=colours[position], **style)
    left.set(xlabel="parameters, millions (counted here)", ylabel="ImageNet top-1 accuracy, % (as published)")
    right.set(xlabel="multiply-accumulates, billions (counted here)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize="small", ncols=2, loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
