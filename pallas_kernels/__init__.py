"""Fused dynamic filters for JAX: GPU kernels for filters that are generated from the input, and their derivatives."""

from pallas_kernels import aot as aot
from pallas_kernels.ops.api import dynamic_filter as dynamic_filter
from pallas_kernels.ops.api import dynamic_upsample as dynamic_upsample
from pallas_kernels.ops.arg_specs import ARG_SPECS as ARG_SPECS
from pallas_kernels.ops.arg_specs import ArgSpec as ArgSpec
from pallas_kernels.ops.attention import neighborhood_attention as neighborhood_attention
from pallas_kernels.ops.choice import DISABLED_EXPORT_CHECKS as DISABLED_EXPORT_CHECKS
from pallas_kernels.ops.choice import IMPLEMENTATIONS as IMPLEMENTATIONS
from pallas_kernels.ops.correlation import local_correlation as local_correlation
from pallas_kernels.ops.halo import halo_exchange as halo_exchange
from pallas_kernels.ops.macs import operator_macs as operator_macs
from pallas_kernels.ops.normalization import square_root as square_root
from pallas_kernels.ops.spec import Combine as Combine
from pallas_kernels.ops.spec import FilterSpec as FilterSpec
from pallas_kernels.ops.spec import accumulator_dtype as accumulator_dtype
from pallas_kernels.tuning import TunedConfigs as TunedConfigs
from pallas_kernels.tuning import autotune as autotune
