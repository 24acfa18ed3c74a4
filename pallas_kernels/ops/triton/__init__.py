"""The operator as Pallas:Triton kernels for NVIDIA GPUs, Ampere or newer."""

from pallas_kernels.ops.triton.bwd import backward as backward
from pallas_kernels.ops.triton.fwd import forward as forward
