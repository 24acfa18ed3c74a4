"""The Triton kernels as an implementation of the operator that runs on a CPU, interpreted: exact and slow."""

import functools

from pallas_kernels.ops.triton import bwd, fwd

forward = functools.partial(fwd.forward, interpret=True)
backward = functools.partial(bwd.backward, interpret=True)
