"""Trained networks in use: exported files, which need JAX alone, and an HTTP server."""
