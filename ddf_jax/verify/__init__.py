"""Are our numbers PyTorch's? Compares models with their ports layer by layer."""

from ddf_jax.verify.api import verify as verify
from ddf_jax.verify.plot import draw_errors as draw_errors
from ddf_jax.verify.report import Report as Report
from ddf_jax.verify.report import format_table as format_table
