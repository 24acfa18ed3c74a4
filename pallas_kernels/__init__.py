"""Fused dynamic filters for JAX: filters that are generated from the input, as GPU kernels with a hand-written VJP."""

from pallas_kernels import aot as aot
from pallas_kernels.ops.api import IMPLEMENTATIONS as IMPLEMENTATIONS
from pallas_kernels.ops.api import dynamic_filter as dynamic_filter
from pallas_kernels.ops.api import dynamic_upsample as dynamic_upsample
from pallas_kernels.ops.arg_specs import ARG_SPECS as ARG_SPECS
from pallas_kernels.ops.arg_specs import ArgSpec as ArgSpec
from pallas_kernels.ops.spec import Combine as Combine
from pallas_kernels.ops.spec import FilterSpec as FilterSpec
from pallas_kernels.ops.spec import accumulator_dtype as accumulator_dtype
from pallas_kernels.ops.vjp import dynamic_filter_taps as dynamic_filter_taps
