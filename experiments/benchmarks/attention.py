"""Attention in a neighbourhood for the GPU suite: the fused kernel, and the composition that it replaces."""

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.checks import share_of_tolerance
from experiments.benchmarks.rows import Row
from pallas_kernels.ops.choice import IMPLEMENTATIONS
from pallas_kernels.ops.fused_attention import attend
from pallas_kernels.ops.neighborhood import AttentionSpec, Border


@dataclasses.dataclass(frozen=True)
class Attention:
    """A call, whose bias is of each head and key."""

    shape: tuple[int, int, int, int]
    kernel_size: int
    num_heads: int
    border: Border

    @property
    def spec(self) -> AttentionSpec:
        size = self.kernel_size, self.kernel_size
        return AttentionSpec(size, (1, 1), (self.shape[-1] // self.num_heads) ** -0.5, self.border)

    def key(self, implementation: str, dtype: str) -> Row:
        name = f"attention_{self.border}_{'x'.join(map(str, self.shape))}"
        kernel = {"kernel_size": self.kernel_size, "pass": "forward"}
        return {"implementation": implementation, "shape": name, "dtype": dtype} | kernel

    def lower(self, implementation: str, dtype: str, composed: bool = False) -> jax.stages.Lowered:
        preference: Any = (Composed(implementation) if composed else implementation,)
        options: Any = {"spec": self.spec, "num_heads": self.num_heads, "preference": preference}
        return jax.jit(lambda *arrays: attend(*arrays, **options)).lower(*jax.eval_shape(lambda: self.arrays(dtype)))

    def arrays(self, dtype: str) -> list[jax.Array]:
        """v, q, k and the bias."""
        shapes = (self.shape,) * 3 + ((self.num_heads, self.spec.bias_taps),)
        return [jax.random.normal(jax.random.key(seed), shape, dtype) for seed, shape in enumerate(shapes)]

    def check(self, compiled: Any, dtype: str) -> Row:
        """The result, computed twice, against the composition in float64."""
        arrays = self.arrays(dtype)
        first, second = (np.asarray(compiled(*arrays)) for _ in range(2))
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            v, q, k, bias = (jnp.asarray(np.asarray(array).astype(np.float64)) for array in arrays)
            expected = attend(v, q, k, bias, spec=self.spec, num_heads=self.num_heads, preference=("xla",))
            worst = share_of_tolerance(first, np.asarray(expected), dtype)
        same = first.tobytes() == second.tobytes()
        return {"worst_share_of_tolerance": worst, "same_bits_twice": same, "passed": same and worst <= 1}


@dataclasses.dataclass(frozen=True)
class Composed:
    """An implementation without its `attend`."""

    name: str

    def forward(self, *arguments: Any) -> Any:
        return importlib.import_module(IMPLEMENTATIONS[self.name]).forward(*arguments)

    def backward(self, *arguments: Any) -> Any:
        return importlib.import_module(IMPLEMENTATIONS[self.name]).backward(*arguments)


TINY = Attention((1, 2, 3, 4), 1, 2, "shift")  # of a dry run
TIMED = Attention((32, 56, 56, 128), 7, 4, "shift")  # the first stage of NAT, with four heads of 32 channels
CHECKED = tuple(Attention((3, 19, 17, 48), 5, 2, border) for border in ("zero", "mask", "shift"))
