"""Datasets that ship with the package or whose files it reads."""
