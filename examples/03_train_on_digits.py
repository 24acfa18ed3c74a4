"""Trains a small DDF-ResNet on real handwritten digits: a shipped recipe, shortened to two epochs.

`ddf train digits --epochs 2 --workdir runs/example` does the same from a shell.
"""

import dataclasses

import ddf_jax
from ddf_jax.recipes.digits import recipe as digits

recipe = dataclasses.replace(digits, name="example", epochs=2, evaluate_every=0, checkpoint_every=0)

if __name__ == "__main__":  # data workers are processes of their own
    summary = ddf_jax.train(recipe, "runs/example")
    print(f"test accuracy {summary['test_accuracy']:.1%} after {summary['steps']} steps")
