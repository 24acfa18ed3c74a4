"""DDF in a Flax model of your own: it replaces the depthwise 3×3 convolution, the 1×1 convolution stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ddf_jax.layers import DDF


class Block(nnx.Module):
    def __init__(self, in_channels: int, out_channels: int, *, stride: int, rngs: nnx.Rngs):
        self.filter = DDF(in_channels, stride=stride, rngs=rngs)  # was a depthwise nnx.Conv
        self.norm = nnx.BatchNorm(in_channels, momentum=0.9, rngs=rngs)
        self.mix = nnx.Conv(in_channels, out_channels, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.relu(self.mix(self.norm(self.filter(x))))


class Net(nnx.Module):
    def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.blocks = nnx.List([Block(8, 16, stride=2, rngs=rngs), Block(16, 16, stride=1, rngs=rngs)])
        self.head = nnx.Linear(16, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


@nnx.jit
def create() -> tuple[Net, nnx.Optimizer]:
    model = Net(num_classes=4, rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


@nnx.jit
def train_step(model: Net, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    def loss_fn(model: Net) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


# Four kinds of images: a bright quadrant each.
labels = jnp.arange(16) % 4
quadrant = np.eye(4)[np.arange(16) % 4].reshape(16, 2, 2, 1)
noise = np.random.default_rng(0).normal(0, 0.1, (16, 16, 16, 3))
images = jnp.asarray(quadrant.repeat(8, 1).repeat(8, 2) + noise, jnp.float32)

model, optimizer = create()
model.train()
losses = [float(train_step(model, optimizer, images, labels)) for _ in range(30)]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")

model.eval()  # BatchNorm uses its running statistics
print("classes", nnx.jit(lambda model, images: model(images).argmax(-1))(model, images[:4]))
