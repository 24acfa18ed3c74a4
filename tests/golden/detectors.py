"""MMDetection's numbers of each detector, shortened from a reference (`ddf verify --reference`).

`python -m tests.golden.detectors FOLDER` writes them again from the files `mmdet_{family}.json` and `.npz` of a folder.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ddf_jax.checkpoints.conversion import expected_shapes
from ddf_jax.models import abstract
from ddf_jax.verify.reference import summary

FOLDER = Path(__file__).parent
FAMILIES = ("retinanet", "faster_rcnn", "mask_rcnn", "htc", "panoptic_fpn")
# Heads are shared by the levels, so two of them tell as much as five. Long arrays are summarised.
_LEFT_OUT = re.compile(r"eval/dense_(cls|reg)[1-3]")
_SUMMARISED = re.compile(r"eval/(neck_last_but_one|boxes\d)|(eval|train)/proposals\d")
_COUNT = 180
_DOCUMENT = "document"  # the JSON, with the samples, but without the shapes of the tensors: they are the model's
_SAMPLE = re.compile(r"train/sample\d+_(pos|neg|gt)")  # arrays so short that the headers of a file are longer


def load(family: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The JSON and the arrays of a reference."""
    with np.load(FOLDER / f"mmdet_{family}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    document = json.loads(arrays.pop(_DOCUMENT).tobytes())
    arrays |= {name: np.array(numbers, np.int32) for name, numbers in document.pop("arrays").items()}
    shapes = expected_shapes(abstract(f"{family}_resnet50"), "official")
    return document | {"state": {name: list(shape) for name, shape in shapes.items()}}, arrays


def write(family: str, path: Path) -> Path:
    """Writes a golden as a reference's two files, to `PATH.json` and `PATH.npz`."""
    document, arrays = load(family)
    path.with_name(f"{path.name}.json").write_text(json.dumps(document))
    np.savez(path.with_name(f"{path.name}.npz"), allow_pickle=False, **arrays)
    return path


def record(folder: Path, family: str) -> None:
    """Shortens the reference in a folder."""
    document = json.loads((folder / f"mmdet_{family}.json").read_text())
    document.pop("state")
    with np.load(folder / f"mmdet_{family}.npz") as file:
        arrays = {name: file[name] for name in file.files if not _LEFT_OUT.fullmatch(name)}
    for name, array in arrays.items():
        if _SUMMARISED.fullmatch(name):
            arrays[name] = summary(array, min(_COUNT, array.size))
    document["arrays"] = {name: arrays.pop(name).tolist() for name in [*arrays] if _SAMPLE.fullmatch(name)}
    arrays[_DOCUMENT] = np.frombuffer(json.dumps(document).encode(), np.uint8)
    np.savez_compressed(FOLDER / f"mmdet_{family}.npz", allow_pickle=False, **arrays)


if __name__ == "__main__":
    for name in FAMILIES:
        if (Path(sys.argv[1]) / f"mmdet_{name}.npz").exists():
            record(Path(sys.argv[1]), name)
