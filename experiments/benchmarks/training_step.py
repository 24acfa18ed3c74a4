"""A training step of an image classifier on synthetic data: forward, backward, and SGD with momentum."""

import functools
import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ddf_jax import models
from experiments.benchmarks.rows import Row, row_time
from pallas_kernels.tuning.timing import peak_bytes

Arrays = tuple[Any, jax.Array, jax.Array]
"""State, images and labels of a step."""


class TrainingStep:
    """One step of a registered model, as a compiled program over its state.

    Args:
        name: of the model.
        batch: images of a step.
        image_size: their height and width.
        dtype: that the model computes in; parameters are float32.
        options: of the model.
    """

    def __init__(self, name: str, *, batch: int, image_size: int, dtype: str, options: Mapping[str, Any] | None = None):
        self.name, self.dtype, self.options = name, dtype, dict(options or {})
        self.images = (batch, image_size, image_size, 3)
        self.structure, self.abstract = nnx.split(nnx.eval_shape(self._build))

    def _build(self) -> dict[str, Any]:
        model = models.create(self.name, dtype=jnp.dtype(self.dtype), rngs=nnx.Rngs(0), **self.options)
        sgd = optax.sgd(0.1, momentum=0.9, nesterov=True)
        return {"model": model, "optimizer": nnx.Optimizer(model, sgd, wrt=nnx.Param)}

    def lower(self) -> jax.stages.Lowered:
        """(state, images, labels) to the next state and the loss, not yet compiled."""
        images = jax.ShapeDtypeStruct(self.images, jnp.dtype(self.dtype))
        labels = jax.ShapeDtypeStruct(self.images[:1], jnp.int32)
        return jax.jit(self._step, donate_argnums=0).lower(self.abstract, images, labels)

    def _step(self, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        nodes: Any = nnx.merge(self.structure, state)
        model, optimizer = nodes["model"], nodes["optimizer"]
        model.train()

        def loss_of(model: nnx.Module) -> jax.Array:
            logits = model(images).astype(jnp.float32)  # pyright: ignore[reportCallIssue]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return nnx.state(nodes), loss

    @functools.cached_property
    def _initial(self) -> tuple[Any, np.ndarray, np.ndarray]:
        with jax.default_device(jax.devices("cpu")[0]):  # the GPU is spared the compilation of the initialisation
            state = nnx.state(jax.jit(lambda: nnx.state(self._build()))())
        generator = np.random.default_rng(0)
        images = generator.standard_normal(self.images, np.float32).astype(jnp.dtype(self.dtype))
        return state, images, generator.integers(0, 10, self.images[:1], np.int32)

    def arrays(self) -> Arrays:
        """A state as initialised, random images and random labels, on the default device."""
        return jax.device_put(self._initial, jax.devices()[0], may_alias=False)

    def run(self, compiled: jax.stages.Compiled, arrays: Arrays, *, steps: int) -> tuple[Arrays, jax.Array]:
        """Steps that follow each other, to their end: the arrays after the last, and its loss.

        Args:
            compiled: the step.
            arrays: state, images and labels; the state is given away.
            steps: at least one.
        """
        state, images, labels = arrays
        loss = None
        for _ in range(steps):
            state, loss = compiled(state, images, labels)
        return jax.block_until_ready(((state, images, labels), loss))

    def measure(self, compiled: jax.stages.Compiled, *, rounds: int, steps: int) -> Row:
        """Times `rounds` runs of `steps` steps that follow each other, by the host's clock: a step takes long enough.

        Also gives the loss of the first and of the last step.
        """
        arrays, first = self.run(compiled, self.arrays(), steps=1)
        loss, seconds = first, []
        for _ in range(rounds):
            start = time.perf_counter()
            arrays, loss = self.run(compiled, arrays, steps=steps)
            seconds.append((time.perf_counter() - start) / steps)
        if not math.isfinite(float(first)):
            raise ArithmeticError(f"expected a finite loss of the first step, got {float(first)}")
        return {
            **row_time(seconds, "host", peak_bytes(compiled)),
            "images_per_second": self.images[0] / statistics.median(seconds),
            "first_loss": float(first),
            "last_loss": float(loss),
        }
