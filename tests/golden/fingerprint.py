"""The fingerprint of a trace: two numbers for each tensor, instead of its millions of elements."""

import zlib
from pathlib import Path

import numpy as np

from ddf_jax.verify.random_inputs import RandomBatch, random_batch
from ddf_jax.verify.report import LAYER_SHARE
from ddf_jax.verify.trace import TrainingTrace

FOLDER = Path(__file__).parent
# One of each family, with two blocks alike and one that changes the shape: in what else the members of a family differ,
# numbers of blocks and widths, is pinned elsewhere, and these compile in seconds.
MODELS = ("resnet18", "resnet50", "ddf_resnet18", "ddf_resnet50", "ddf_add_resnet50")
OPTIONS = {"blocks": (2, 1), "width": 32}
NUM_CLASSES = 10
MARGIN = 1.0

# Kind, name and shape of a tensor, to its projection and its largest element.
Fingerprint = dict[str, tuple[float, float]]


def inputs() -> RandomBatch:
    return random_batch((49, 33), batch=2, num_classes=NUM_CLASSES)


def fingerprint(trace: TrainingTrace) -> Fingerprint:
    """The projection on a fixed direction of random signs, where any difference but an orthogonal one shows."""
    return {
        f"{kind} {name} {list(value.shape)}": (_project(value), float(np.abs(value).max()))
        for kind, tensors in trace.items()
        for name, value in tensors.items()
    }


def errors(ours: Fingerprint, recorded: Fingerprint) -> dict[str, float]:
    """Difference of the projections, relative to the largest element as `verify` has it; infinite where ours lacks.

    Outputs of layers that are on one side only, or have another shape there, are left out.
    """
    layers: dict[str, float] = {}
    for name, (_, largest) in recorded.items():
        layers[_layer(name)] = max(layers.get(_layer(name), 0.0), largest)
    return {
        name: abs(ours.get(name, (np.inf,))[0] - projection) / max(largest, LAYER_SHARE * layers[_layer(name)])
        for name, (projection, largest) in recorded.items()
        if name in ours or not name.startswith(("evaluation ", "training "))
    }


def save(model: str, values: Fingerprint) -> None:
    np.savez_compressed(FOLDER / f"{model}.npz", names=np.array(list(values)), values=np.array(list(values.values())))


def load(model: str) -> Fingerprint:
    with np.load(FOLDER / f"{model}.npz") as file:
        return {str(name): (float(p), float(m)) for name, (p, m) in zip(file["names"], file["values"], strict=True)}


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _project(value: np.ndarray) -> float:
    signs = np.random.RandomState(zlib.crc32(str(value.size).encode())).choice([-1.0, 1.0], value.size)
    return float(value.reshape(-1).astype(np.float64) @ signs / np.sqrt(value.size))
