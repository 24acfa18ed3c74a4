"""Images in, classes out."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddf_jax.data.decode import decode_image
from ddf_jax.data.transforms import evaluation_transforms
from ddf_jax.serving.services import Arrays, Example, Service, Size
from ddf_jax.training.devices import normalized
from ddf_jax.training.tasks import Model

_SHOWN = 5  # classes of an image


class ClassificationService(Service):
    """`image` uint8 [B, H, W, C] to `probabilities` float32 [B, classes]."""

    def inputs(self, batch: Size, height: Size, width: Size) -> list[dict[str, jax.ShapeDtypeStruct]]:
        return [{"image": jax.ShapeDtypeStruct((batch, height, width, self.info.channels), jnp.uint8)}]

    def compute(self, model: Model, arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        _, normalize = self._transforms
        image = normalized(arrays["image"], normalize)
        return {"probabilities": self.task.predict(model, {"image": image})}

    def read(self, files: Mapping[str, bytes], *, picture: bool = False) -> Example:
        resize, _ = self._transforms
        image = decode_image(files["image"], self.info.channels, self.data.decoding)
        return Example({"image": resize.map({"image": image})["image"]}, image.shape[:2])

    def answer(self, name: str, outputs: Arrays, example: Example) -> list[dict[str, Any]]:
        return [classification_row(name, outputs["probabilities"], self.info.class_names)]

    @property
    def _transforms(self) -> Any:
        return evaluation_transforms(self.data, self.info.channels)


def classification_row(image: str, probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """An image's most likely classes, `{image, predictions: [{class, probability}]}`."""
    best = np.argsort(-probabilities)[:_SHOWN].tolist()
    predictions = [{"class": class_names[label], "probability": float(probabilities[label])} for label in best]
    return {"image": image, "predictions": predictions}
