"""The Triton kernels as an implementation that runs without a GPU."""

import functools

from pallas_kernels.dynamic_filter import triton_vjp

forward = functools.partial(triton_vjp.forward, interpret=True)
backward = functools.partial(triton_vjp.backward, interpret=True)
