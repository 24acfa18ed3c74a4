"""The printed parameters, multiply-accumulates and accuracies of detectors, digit by digit.

mmcv's counter prints two decimals; DCDC's tables and the involution repository's have them rounded again to one.
Accuracies are of COCO's validation set, in percent. Nothing here computes them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ddf_jax.analysis.published import table_source


class DetectorRow(NamedTuple):
    """One row of a table, its numbers as printed ("" where there is none)."""

    label: str
    """The detector, its backbone, and the operator in its neck or in its neck and head."""
    params_millions: str
    macs_billions: str
    accuracies: tuple[str, ...]
    """Of the table's first columns."""
    model: str
    options: Mapping[str, Any] = MappingProxyType({})
    uncounted: tuple[str, ...] = ()
    """Parts of the network whose multiply-accumulates the row leaves out."""


class DetectorTable(NamedTuple):
    """A table and what it counts."""

    columns: tuple[str, ...]
    """Of accuracies."""
    rows: tuple[DetectorRow, ...]
    params: Literal["trainable", "total"] = "trainable"
    """Whether the frozen layers of the backbone count."""
    macs: Literal["mmcv", "mmcv and dynamic filters"] = "mmcv"
    why: str = ""
    """The reason of differences, where there are some."""


_SIZES = ("AP", "AP_S", "AP_M", "AP_L")
_BOXES = tuple(f"{name} bbox" for name in _SIZES)
_BOXES_AND_MASKS = tuple(f"{name} {of}" for name in _SIZES for of in ("bbox", "seg"))
_QUALITIES = tuple(f"{name}{of}" for name in ("PQ", "SQ", "RQ") for of in ("", "_Th", "_St"))
_ALL = tuple(f"{name} {of}" for of in ("bbox", "seg") for name in ("AP", "AP_50", "AP_75", *_SIZES[1:]))

_FAMILIES = {
    "RetinaNet": "retinanet",
    "Faster R-CNN": "faster_rcnn",
    "Mask R-CNN": "mask_rcnn",
    "HTC": "htc",
    "PFPN": "panoptic_fpn",
}
_BACKBONES = {
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNeXt101": "resnext101_32x4d",
    "RedNet50": "rednet50",
    "DCDC-ResNet26": "dcdc_resnet26",
    "DCDC-ResNet50": "dcdc_resnet50",
    "BiNet-50 (dc)": "binet50",
}
# The stem of the involution repository's classifiers has a 3×3 involution, that of its detectors a 7×7 one. The FLOPs
# of its rows with a convolution in the neck are those of 3×3.
_REPOSITORY_NECK = {"neck": "involution", "stem_kernel_size": 7}
_OPERATORS = {
    "convolution": {},
    "involution neck": {"neck": "involution"},
    "DCDC neck": {"neck": "dcdc"},
    "involution neck (7×7 in the stem)": _REPOSITORY_NECK,
    "involution neck and head (7×7 in the stem)": {"head": "involution", **_REPOSITORY_NECK},
    "Bi-volution neck and head": {"neck": "bivolution", "head": "bivolution"},
}


def _rows(detector: str, *rows: tuple[str, str, str, str, str], uncounted: tuple[str, ...] = ()) -> list[DetectorRow]:
    """Rows of a detector: backbone, operator, parameters, FLOPs, and accuracies separated by spaces or slashes."""
    return [
        DetectorRow(
            f"{detector}, {backbone}, {operator}",
            params,
            macs,
            tuple(accuracies.replace("/", " ").split()),
            f"{_FAMILIES[detector]}_{_BACKBONES[backbone]}",
            MappingProxyType(_OPERATORS[operator]),
            uncounted,
        )
        for backbone, operator, params, macs, accuracies in rows
    ]


# mmcv's counter overlooked its own classes of layers.
_MASK_OUTPUTS = ("regions.mask.upsample", "regions.mask.logits")

_PANOPTIC = "the printed numbers are Mask R-CNN's of Table VI + 1.8 M (+ 1.7 M); MMDetection's semantic head has 1.63 M"

DETECTOR_TABLES: dict[str, DetectorTable] = {
    "DCDC, Table V": DetectorTable(
        _BOXES,
        (
            *_rows(
                "RetinaNet",
                ("DCDC-ResNet26", "DCDC neck", "20.2", "179.4", "37.3 20.6 41.4 49.2"),
                ("ResNet50", "convolution", "37.7", "239.3", "36.6 20.9 40.6 47.5"),
                ("RedNet50", "convolution", "27.8", "208.6", "38.3 21.1 41.8 50.9"),
                ("DCDC-ResNet50", "convolution", "28.1", "210.0", "39.6 22.7 43.5 53.2"),
                ("RedNet50", "involution neck", "26.3", "197.7", "38.2 21.8 41.6 50.7"),
                ("DCDC-ResNet50", "DCDC neck", "26.5", "199.3", "39.5 23.3 43.2 52.4"),
                ("ResNet101", "convolution", "56.7", "315.4", "38.5 21.7 42.8 50.4"),
            ),
            *_rows(
                "Faster R-CNN",
                ("DCDC-ResNet26", "DCDC neck", "23.5", "114.5", "38.7 22.4 42.2 50.8"),
                ("ResNet50", "convolution", "41.5", "207.1", "37.7 21.7 41.6 48.4"),
                ("RedNet50", "convolution", "31.6", "176.4", "39.5 23.3 42.9 52.2"),
                ("DCDC-ResNet50", "convolution", "31.9", "177.7", "40.4 24.0 43.8 52.6"),
                ("RedNet50", "involution neck", "29.5", "132.0", "40.2 24.2 43.3 52.7"),
                ("DCDC-ResNet50", "DCDC neck", "29.8", "134.4", "40.9 24.6 44.1 53.5"),
                ("ResNet101", "convolution", "60.5", "283.1", "39.4 22.4 43.7 51.1"),
            ),
        ),
    ),
    "DCDC, Table VI": DetectorTable(
        _BOXES_AND_MASKS,
        (
            *_rows(
                "Mask R-CNN",
                ("DCDC-ResNet26", "DCDC neck", "26.1", "167.6", "39.5/35.4 22.8/16.7 43.2/38.1 51.7/51.6"),
                ("ResNet50", "convolution", "44.2", "260.1", "38.4/35.1 21.9/18.5 42.3/38.6 49.7/46.9"),
                ("RedNet50", "convolution", "34.2", "229.5", "40.2/36.1 24.2/19.9 43.4/39.3 52.5/48.9"),
                ("DCDC-ResNet50", "convolution", "34.5", "230.8", "40.9/36.5 23.9/17.4 44.4/39.5 52.8/52.2"),
                ("RedNet50", "involution neck", "32.2", "185.1", "40.8/36.4 24.2/19.9 44.0/39.4 53.0/49.1"),
                ("DCDC-ResNet50", "DCDC neck", "32.5", "187.4", "41.7/37.1 25.8/19.1 45.1/39.9 53.7/53.0"),
                ("ResNet101", "convolution", "63.2", "336.2", "40.0/36.1 22.6/18.8 44.0/39.7 52.6/49.5"),
            ),
            *_rows(
                "HTC",
                ("ResNet50", "convolution", "80.0", "441.4", "43.3/38.3 24.3/19.9 46.4/41.0 57.7/53.0"),
                ("DCDC-ResNet50", "DCDC neck", "68.3", "368.7", "46.1/40.6 28.9/21.1 49.2/43.2 60.7/58.8"),
                ("ResNet101", "convolution", "99.0", "517.5", "44.8/39.6 25.7/21.3 48.5/42.9 60.2/55.0"),
                ("ResNeXt101", "convolution", "98.7", "521.2", "46.1/40.5 27.1/22.1 49.6/43.9 60.9/55.5"),
            ),
        ),
    ),
    "DCDC, Table VII": DetectorTable(
        _QUALITIES,
        (
            *_rows(
                "PFPN",
                ("ResNet50", "convolution", "46", "", "40.3 47.8 29.0 77.8 80.9 73.2 49.4 57.6 37.0"),
                ("RedNet50", "convolution", "36", "", "42.4 49.3 32.0 78.4 81.0 74.5 51.8 59.3 40.5"),
                ("DCDC-ResNet50", "convolution", "36.3", "", "43.1 50.0 32.7 78.6 81.1 74.9 52.6 60.1 41.2"),
                ("RedNet50", "involution neck", "34", "", "42.8 49.8 32.1 78.4 80.8 74.8 52.3 60.2 40.4"),
                ("DCDC-ResNet50", "DCDC neck", "34.3", "", "43.3 50.3 32.7 78.9 81.0 75.7 52.7 60.5 40.9"),
                ("ResNet101", "convolution", "64.9", "", "42.2 50.1 30.3 78.3 81.4 73.6 51.4 59.9 38.5"),
            ),
        ),
        params="total",
        why=_PANOPTIC,
    ),
    "Involution repository, COCO": DetectorTable(
        ("AP bbox", "AP seg"),
        (
            *_rows(
                "Faster R-CNN",
                ("RedNet50", "convolution", "31.6", "177.9", "39.5"),
                ("RedNet50", "involution neck (7×7 in the stem)", "29.5", "135.0", "40.2"),
                ("RedNet50", "involution neck and head (7×7 in the stem)", "29.0", "91.5", "39.2"),
            ),
            *_rows(
                "Mask R-CNN",
                ("RedNet50", "convolution", "34.2", "224.2", "39.9/35.7"),
                ("RedNet50", "involution neck (7×7 in the stem)", "32.2", "181.3", "40.8/36.4"),
                uncounted=_MASK_OUTPUTS,
            ),
            *_rows(
                "Mask R-CNN",
                ("RedNet50", "involution neck and head (7×7 in the stem)", "29.5", "104.6", "39.6/35.1"),
            ),
            *_rows(
                "RetinaNet",
                ("RedNet50", "convolution", "27.8", "210.1", "38.2"),
                ("RedNet50", "involution neck (7×7 in the stem)", "26.3", "199.9", "38.2"),
            ),
        ),
        macs="mmcv and dynamic filters",
    ),
    "Bi-volution, Table 2": DetectorTable(
        _ALL,
        (
            *_rows(
                "Faster R-CNN",
                ("ResNet50", "convolution", "", "", "37.7 58.7 40.8 21.7 41.6 48.4"),
                ("RedNet50", "convolution", "", "", "39.5 60.9 42.8 23.3 42.9 52.2"),
                ("BiNet-50 (dc)", "convolution", "", "", "40.0 61.4 43.4 23.5 43.5 52.1"),
                ("RedNet50", "involution neck and head (7×7 in the stem)", "", "", "39.2 61.0 42.4 23.1 43.0 50.7"),
                ("BiNet-50 (dc)", "Bi-volution neck and head", "", "", "40.1 61.8 43.8 23.4 43.9 52.2"),
            ),
            # Two rows of the paper each: boxes, then masks. (In our copy the second has the wrong backbone.)
            *_rows(
                "Mask R-CNN",
                ("ResNet50", "convolution", "", "", "38.4 59.2 41.9 21.9 42.3 49.7 35.1 56.3 37.3 18.5 38.6 46.9"),
                ("RedNet50", "convolution", "", "", "40.2 61.4 43.7 24.2 43.4 52.5 36.1 58.1 38.2 19.9 39.3 48.9"),
                ("BiNet-50 (dc)", "convolution", "", "", "40.6 61.7 44.3 23.8 43.9 53.1 36.4 58.3 38.8 20.0 39.6 49.3"),
            ),
        ),
    ),
}


class PublishedDetector(NamedTuple):
    """What is printed for a registered detector."""

    params_millions: float | None
    """Of trained parameters; of Panoptic FPN, of all."""
    macs_billions: float | None
    box_ap: float | None
    """In 0..1, as the others."""
    mask_ap: float | None
    pq: float | None
    source: str


def _published(name: str, table: DetectorTable, row: DetectorRow) -> PublishedDetector:
    scores = dict(zip(table.columns, row.accuracies, strict=False))
    box_ap, mask_ap, pq = (scores.get(column) for column in ("AP bbox", "AP seg", "PQ"))
    return PublishedDetector(
        params_millions=_number(row.params_millions),
        macs_billions=_number(row.macs_billions),
        box_ap=_number(box_ap, 100),
        mask_ap=_number(mask_ap, 100),
        pq=_number(pq, 100),
        source=table_source(name),
    )


def _number(printed: str | None, unit: int = 1) -> float | None:
    return round(float(printed) / unit, 6) if printed else None


# The first table that has a detector as it is registered, DCDC's before the others.
PUBLISHED_DETECTORS: dict[str, PublishedDetector] = {
    row.model: _published(name, table, row)
    for name, table in reversed(DETECTOR_TABLES.items())
    for row in reversed(table.rows)
    if not row.options
}
