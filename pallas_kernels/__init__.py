"""Fused dynamic filters for JAX."""

from pallas_kernels.ops.api import dynamic_filter as dynamic_filter
from pallas_kernels.ops.api import dynamic_upsample as dynamic_upsample
