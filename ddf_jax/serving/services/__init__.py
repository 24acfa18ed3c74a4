"""How the networks of each task meet their users: what a program takes and gives, and what files become of it."""

import abc
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.errors import UserError
from ddf_jax.training.tasks import Model, Task

Size = Any
"""An int, or a symbolic size of `jax.export`."""

Arrays = Mapping[str, np.ndarray]


class Example(NamedTuple):
    """A user's files, read.

    Args:
        arrays: what a program takes for it, without the axis of the batch.
        size: height and width of the image.
        image: its pixels, uint8 [H, W, C], where a picture was asked for.
    """

    arrays: dict[str, np.ndarray]
    size: tuple[int, int]
    image: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Service(abc.ABC):
    """A task at the border to those who use its networks.

    Args:
        task: the run's.
        info: the data that the network was trained on.
        data: how image files are read and prepared.
    """

    task: Any
    info: DataInfo
    data: DataConfig

    files: ClassVar[Mapping[str, str]] = {"image": "an image: PNG, JPEG, WebP, …"}
    """What a request holds, by name."""
    max_pixels: ClassVar[int] = 1 << 24
    """Of an image, where the server has no other limit."""
    any_batch: ClassVar[bool] = True
    """Whether one program can take batches of any size."""
    any_size: ClassVar[bool] = True
    """Whether one program can take images of any size."""
    resizes: ClassVar[bool] = True
    """Whether `read` brings every image to the size of the evaluation's."""

    @abc.abstractmethod
    def inputs(self, batch: Size, height: Size, width: Size) -> list[dict[str, jax.ShapeDtypeStruct]]:
        """Arrays that a program takes; several where images are put on several canvases."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image in evaluation."""
        return self.info.eval_shape or (self.info.image_size, self.info.image_size)

    @abc.abstractmethod
    def compute(self, model: Model, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The program: predictions [B, …] by name from the arrays of `inputs`, pixels being uint8."""

    @abc.abstractmethod
    def read(self, files: Mapping[str, bytes], *, picture: bool = False) -> Example:
        """Prepares files as the run's evaluation images are.

        Raises:
            CorruptImageError: one cannot be decoded.
            UserError: they do not fit.
        """

    @abc.abstractmethod
    def answer(self, name: str, outputs: Arrays, example: Example) -> Any:
        """The document that a command prints with --json for this image, files being `data:` URLs.

        Args:
            name: the image's.
            outputs: of `compute` for this image, without the axis of the batch.
            example: of `read`; where it has the image, the document has a `picture`.
        """


SERVICES = {
    "classification": "ddf_jax.serving.services.classification:ClassificationService",
    "depth_upsampling": "ddf_jax.serving.services.depth_upsampling:DepthService",
    "detection": "ddf_jax.serving.services.detection:DetectionService",
}
"""Module and class of the service of each kind of model (`Task.model_task`)."""


def service_of(task: Task, info: DataInfo, data: DataConfig) -> Service:
    """The service of a run's task.

    Raises:
        UserError: the task has none.
    """
    if task.model_task not in SERVICES:
        raise UserError(
            f"A run that is exported or served must be of {', '.join(SERVICES)}, got {task.model_task}: add its "
            "service to `ddf_jax.serving.services.SERVICES`."
        )
    module, _, name = SERVICES[task.model_task].partition(":")
    return getattr(importlib.import_module(module), name)(task, info, data)


def data_url(png: bytes) -> str:
    """A PNG file as a URL that holds it."""
    import base64

    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def stack(examples: Sequence[Example], rows: int) -> dict[str, np.ndarray]:
    """Examples of one shape as a batch, the last one repeated up to so many rows."""
    padded = [*examples, *[examples[-1]] * (rows - len(examples))]
    return {name: np.stack([example.arrays[name] for example in padded]) for name in examples[0].arrays}
