"""The operator as Pallas:Triton kernels for NVIDIA GPUs, Ampere or newer."""

from pallas_kernels.ops.triton.attention import attend as attend
from pallas_kernels.ops.triton.bwd import backward as backward
from pallas_kernels.ops.triton.fwd import forward as forward
