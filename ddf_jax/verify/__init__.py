"""Compares networks and upsamplers with their PyTorch ports, layer by layer, and detectors with references."""

from ddf_jax.verify.comparison import Comparison as Comparison
from ddf_jax.verify.comparison import format_comparisons as format_comparisons
from ddf_jax.verify.error_plot import draw_errors as draw_errors
from ddf_jax.verify.parity import verify as verify
from ddf_jax.verify.references import verify_reference as verify_reference
from ddf_jax.verify.report import Report as Report
from ddf_jax.verify.report import format_table as format_table
