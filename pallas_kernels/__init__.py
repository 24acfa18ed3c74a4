"""Fused dynamic filters for JAX."""

from pallas_kernels.dynamic_filter.api import dynamic_filter as dynamic_filter
from pallas_kernels.dynamic_filter.api import dynamic_upsample as dynamic_upsample
