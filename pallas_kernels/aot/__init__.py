"""Ahead-of-time compilation for a GPU target: collectives, memory, registers and instructions. No GPU needed.

* `compile_only_devices` makes compile-only devices of JAX's CUDA plugin (``jax-cuda13-plugin`` and
  ``jax-cuda13-pjrt`` of jax's own version). A program lowered for a mesh of them compiles; `program_summary` counts its
  collectives, bytes and kernels, `launches` lists the kernels with the bytes and the arithmetic of each.
* `triton_kernels` takes the Triton kernels out of a lowered program. `resources` compiles one with the public
  ``triton`` package and counts the registers, spills and instructions of its machine code. `kernel_table` does so for
  every kernel of a call, with the lower bounds of its time and the time that `predict` finds by running the code on a
  model of a multiprocessor. `mosaic_resources` does the same for the forward kernel of Mosaic GPU, which the plugin
  compiles.

Neither way needs CUDA.
"""

from pallas_kernels.aot.kernel_launches import Launch as Launch
from pallas_kernels.aot.kernel_launches import launches as launches
from pallas_kernels.aot.latency import LATENCIES as LATENCIES
from pallas_kernels.aot.latency import Latencies as Latencies
from pallas_kernels.aot.latency import Prediction as Prediction
from pallas_kernels.aot.latency import Traffic as Traffic
from pallas_kernels.aot.latency import predict as predict
from pallas_kernels.aot.latency import predict_copied as predict_copied
from pallas_kernels.aot.machine_code import Resources as Resources
from pallas_kernels.aot.machine_code import resources as resources
from pallas_kernels.aot.mosaic import mosaic_resources as mosaic_resources
from pallas_kernels.aot.programs import COLLECTIVES as COLLECTIVES
from pallas_kernels.aot.programs import TRITON_CALL as TRITON_CALL
from pallas_kernels.aot.programs import TritonKernel as TritonKernel
from pallas_kernels.aot.programs import lower as lower
from pallas_kernels.aot.programs import program_summary as program_summary
from pallas_kernels.aot.programs import triton_kernels as triton_kernels
from pallas_kernels.aot.table import KernelRow as KernelRow
from pallas_kernels.aot.table import kernel_table as kernel_table
from pallas_kernels.aot.targets import DEVICES as DEVICES
from pallas_kernels.aot.targets import Device as Device
from pallas_kernels.aot.targets import compile_only_devices as compile_only_devices
from pallas_kernels.aot.targets import use_target as use_target
