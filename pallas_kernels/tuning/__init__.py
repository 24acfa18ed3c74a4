"""Measuring on the device in use: the time of programs, and the fastest configs of kernels."""

from pallas_kernels.tuning.function import TunedConfigs as TunedConfigs
from pallas_kernels.tuning.function import autotune as autotune
