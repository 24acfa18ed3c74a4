"""The Triton kernels as an implementation of the operator that runs on a CPU, interpreted: exact and slow."""

import functools

from pallas_kernels.ops.triton import attention, bwd, fwd

forward = functools.partial(fwd.forward, interpret=True)
backward = functools.partial(bwd.backward, interpret=True)
attend = functools.partial(attention.attend, interpret=True)
