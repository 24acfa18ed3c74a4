"""The run that `03_train_on_digits.py` trained as one file, and its predictions where nothing but JAX is installed.

From a shell: `ddf export runs/example digits.npz`, and `ddf serve digits.npz` to answer over HTTP.
"""

import subprocess
import sys

import ddf_jax
from ddf_jax.serving.exporting import export_run

READER = """
import sys

import jax
import numpy as np
from jax import export  # `pip install jax flatbuffers`

file = np.load("runs/example/digits.npz")
program = export.deserialize(bytearray(file["program"]))
weights = {name: file[name] for name in file.files if name.startswith("weights/")}
for batch, side in ((1, 8), (3, 28)):  # any batch, any size
    images = np.zeros((batch, side, side, 1), np.uint8)
    images[:, side // 8 : -(side // 8), side * 3 // 8 : side * 5 // 8] = 255  # a vertical stroke
    probabilities = jax.jit(program.call)(weights, {"image": images})["probabilities"]
    print(images.shape, "->", probabilities.shape, "a", int(probabilities[0].argmax()))
assert not {"flax", "ddf_jax", "optax"} & set(sys.modules)
"""

if __name__ == "__main__":
    facts = export_run(ddf_jax.load_run("runs/example"), "runs/example/digits.npz")
    print("exported for", facts["platforms"])
    subprocess.run([sys.executable, "-c", READER], check=True)
