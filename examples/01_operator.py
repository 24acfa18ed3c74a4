"""The operator: every pixel is filtered by a filter of its own, combined from a spatial and a channel filter."""

import jax
import jax.numpy as jnp

from pallas_kernels import dynamic_filter, dynamic_upsample

B, H, W, C, G, K, S = 2, 12, 10, 8, 2, 3, 2
T = K * K
keys = jax.random.split(jax.random.key(0), 4)
x = jax.random.normal(keys[0], (B, H, W, C))
spatial = jax.random.normal(keys[1], (B, H, W, G, T))  # a filter per pixel, shared by the C/G channels of a group
channel = jax.random.normal(keys[2], (B, T, C))  # a filter per sample and channel

# Decoupled dynamic filter: the product of both filters (`combine="add"`: their sum).
y = jax.jit(dynamic_filter)(x, spatial, channel)
print("DDF", y.shape)

# Involution: the spatial filter alone, here on every second pixel.
involution = jax.jit(lambda x, filters: dynamic_filter(x, filters, None, stride=2))
print("involution with stride 2", involution(x, spatial[:, ::2, ::2]).shape)

# CARAFE's reassembly: a filter for each of the S² sub-pixels of a pixel; softmax makes them convex combinations.
reassembly = jax.nn.softmax(jax.random.normal(keys[3], (B, H, W, S * S, 1, T)))
print("upsampling", jax.jit(lambda x, filters: dynamic_upsample(x, filters, None, scale=S))(x, reassembly).shape)

# The backward pass is hand-derived: it stores the inputs and no unfolded copy of them.
loss = jax.jit(jax.grad(lambda *inputs: jnp.square(dynamic_filter(*inputs)).mean(), argnums=(0, 1, 2)))
print("gradients", [gradient.shape for gradient in loss(x, spatial, channel)])
