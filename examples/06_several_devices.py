"""A training loop of your own over all devices in one file: a sharded batch is all that it takes.

Without GPUs it makes eight devices of the CPU. Each holds an eighth of the batch; BatchNorm and the loss are those of
the whole batch, and the compiled step exchanges nothing but sums: of gradients and of BatchNorm's statistics.
"""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")  # before JAX is imported

import jax
import numpy as np
import optax
from flax import nnx

import ddf_jax

mesh = jax.make_mesh((jax.device_count(),), ("data",))
split, whole = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
BATCH = 4 * jax.device_count()


@nnx.jit
def create() -> tuple[nnx.Module, nnx.Optimizer]:
    model = ddf_jax.create("ddf_resnet18", num_classes=4, stem="small", width=8, blocks=(1,), rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adam(2e-2), wrt=nnx.Param)


@jax.jit(donate_argnums=0, out_shardings=(whole, whole))
def train_step(state: nnx.State, images: jax.Array, labels: jax.Array) -> tuple[nnx.State, jax.Array]:
    model, optimizer = nnx.merge(structure, state)

    def loss_fn(model: nnx.Module) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return nnx.state((model, optimizer)), loss


def read_batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images with a bright quadrant, whose number is the label. A real loop reads them from files."""
    rng = np.random.default_rng(step)
    labels = rng.integers(0, 4, BATCH)
    images = rng.normal(0, 0.3, (BATCH, 16, 16, 3)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[label // 2 * 8 :, label % 2 * 8 :][:8, :8] += 1
    return images, labels.astype(np.int32)


model, optimizer = create()
model.train()
structure, state = nnx.split((model, optimizer))
state = jax.device_put(state, whole)  # every device has all parameters

program = train_step.lower(state, *jax.device_put(read_batch(0), split)).compile()
for step in range(15):
    state, loss = program(state, *jax.device_put(read_batch(step), split))
    if step % 7 == 0:
        print(f"step {step}: loss {loss:.3f}")

# What the devices send one another: sums, and no image or feature map.
text = str(program.as_text())
names = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
print(f"{jax.device_count()} devices:", {name: text.count(f" {name}(") for name in names})
assert not any(text.count(f" {name}(") for name in names[1:])
