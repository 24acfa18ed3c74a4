"""`ddf predict`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from ddf_jax.cli.command import Result


@dataclasses.dataclass(frozen=True)
class Predict:
    """Say what a run's newest checkpoint sees in images: the five likeliest classes.

    Example:
      ddf predict runs/digits seven.png one.jpg
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE [IMAGE ...]")]
    """Image files, prepared as the run's own test images are."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `[{image, predictions: [{class, probability}]}]`."""

    def run(self) -> Result:
        if not self.images:
            raise ValueError("`ddf predict` needs the path of an IMAGE after the RUN.")
        import jax
        import jax.numpy as jnp
        import numpy as np
        from flax import nnx

        from ddf_jax.data.pipeline import read_image
        from ddf_jax.training.run import load_run

        run = load_run(self.folder)
        if run.recipe.data.target != "label":
            raise ValueError(f"`ddf predict` needs a run of a classifier, got {self.folder}. Try `ddf upsample`.")
        images = [read_image(image, run.info) for image in self.images]
        structure, variables = nnx.split(run.model())

        @jax.jit
        def probabilities(variables: Any, image: jax.Array) -> jax.Array:
            logits = nnx.merge(structure, variables)(image[None])[0]
            return jax.nn.softmax(logits.astype(jnp.float32))

        def best_five(image: np.ndarray) -> list[dict[str, Any]]:
            p = np.asarray(probabilities(variables, image))
            best = np.argsort(-p)[:5].tolist()
            return [{"class": run.info.class_names[label], "probability": float(p[label])} for label in best]

        pairs = zip(self.images, images, strict=True)
        rows = [{"image": str(path), "predictions": best_five(image)} for path, image in pairs]
        return Result(rows, "\n".join(map(_text, rows)))


def _text(row: dict[str, Any]) -> str:
    return "\n".join(
        [row["image"], *(f"{guess['probability']:9.2%}  {guess['class']}" for guess in row["predictions"])]
    )
