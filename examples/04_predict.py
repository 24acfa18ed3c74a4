"""Predictions of the run that `03_train_on_digits.py` trained, and its weights in a file that other programs read."""

import numpy as np
from flax import nnx

import ddf_jax
from ddf_jax.checkpoints import save_checkpoint

run = ddf_jax.load_run("runs/example")

# Images are files, pillow images or uint8 arrays of any size; they are prepared as in the run's own evaluation.
stroke = np.zeros((28, 28), np.uint8)
stroke[4:24, 12:16] = 255
probabilities = ddf_jax.predict(run, [stroke, stroke.T])  # [2, 10]
for name, row in zip(["vertical stroke", "horizontal stroke"], probabilities, strict=True):
    print(name, "is", run.info.class_names[row.argmax()], f"({row.max():.0%})")

# The model is a Flax module. Its weights go into a file, and from there into a model of the same configuration.
save_checkpoint(run.model(), "runs/example/weights.safetensors")
options = {**run.recipe.model.options, **run.recipe.task.model_options(run.info)}
model = ddf_jax.create(
    run.recipe.model.name, **options, checkpoint="runs/example/weights.safetensors", rngs=nnx.Rngs(0)
)
model.eval()
