"""Trained networks in use: exported files, which need JAX alone, and an HTTP server."""

from ddf_jax.serving.exported import ExportedModel as ExportedModel
from ddf_jax.serving.exported import load_exported as load_exported
