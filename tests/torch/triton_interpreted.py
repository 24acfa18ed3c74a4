"""The Triton kernels as an implementation that runs without a GPU."""

import functools

from pallas_kernels.ops.triton import bwd

forward = functools.partial(bwd.forward, interpret=True)
backward = functools.partial(bwd.backward, interpret=True)
