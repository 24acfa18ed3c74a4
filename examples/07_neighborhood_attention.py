"""A block of a neighbourhood attention transformer: every pixel attends to the 7×7 pixels around it."""

import jax
import jax.numpy as jnp
from flax import nnx

from pallas_kernels import neighborhood_attention


class Attention(nnx.Module):
    def __init__(self, channels: int, num_heads: int, kernel_size: int, *, rngs: nnx.Rngs):
        self.num_heads, self.kernel_size = num_heads, kernel_size
        self.qkv = nnx.Linear(channels, 3 * channels, rngs=rngs)
        self.out = nnx.Linear(channels, channels, rngs=rngs)
        offsets = (2 * kernel_size - 1) ** 2
        self.bias = nnx.Param(0.02 * rngs.params.normal((num_heads, offsets)))  # of a key's place relative to the query

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        y = neighborhood_attention(
            q,
            k,
            v,
            kernel_size=self.kernel_size,
            num_heads=self.num_heads,
            border="shift",  # at borders the window is shifted to lie inside; "mask" cuts it, "zero" pads it
            bias=self.bias[...],
        )
        return self.out(y)


class Block(nnx.Module):
    def __init__(self, channels: int, num_heads: int, kernel_size: int = 7, *, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(channels, rngs=rngs), nnx.LayerNorm(channels, rngs=rngs)
        self.attention = Attention(channels, num_heads, kernel_size, rngs=rngs)
        self.mlp = nnx.Sequential(
            nnx.Linear(channels, 3 * channels, rngs=rngs), nnx.gelu, nnx.Linear(3 * channels, channels, rngs=rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


block = nnx.jit(lambda: Block(32, num_heads=4, rngs=nnx.Rngs(0)))()
x = jax.random.normal(jax.random.key(0), (1, 20, 20, 32))
attend = nnx.jit(lambda block, x: block.attention(x))
y = attend(block, x)
print("block", x.shape, "->", nnx.jit(lambda block, x: block(x))(block, x).shape)

# What a pixel sees: a change at (10, 10) reaches the pixels whose windows hold it, and no other.
changed = jnp.abs(attend(block, x.at[0, 10, 10].add(1.0)) - y).max(-1)[0] > 1e-6
rows, columns = (sorted({int(each) for each in places}) for places in jnp.nonzero(changed))
print(f"a change reaches rows {rows[0]} to {rows[-1]} and columns {columns[0]} to {columns[-1]}")
