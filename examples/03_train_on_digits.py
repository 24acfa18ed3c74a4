"""Trains a small DDF-ResNet on real handwritten digits: a shipped recipe, shortened to three epochs.

From a shell: `ddf train digits --epochs 3 --optimizer.warmup-epochs 1 --workdir runs/example`.
"""

import dataclasses

import ddf_jax
from ddf_jax.recipes.digits import recipe as digits

recipe = dataclasses.replace(
    digits,
    name="example",
    optimizer=dataclasses.replace(digits.optimizer, warmup_epochs=1),
    epochs=3,
    evaluate_every=0,  # only at the end
    checkpoint_every=0,
)

if __name__ == "__main__":  # data workers are processes of their own
    summary = ddf_jax.train(recipe, "runs/example")
    print(f"test accuracy {summary['test_accuracy']:.1%} after {summary['steps']} steps")
