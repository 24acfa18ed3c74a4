"""Checkpoints in and out: `.safetensors` and PyTorch files, official names and ours."""

from ddf_jax.convert.checkpoint import convert as convert
from ddf_jax.convert.checkpoint import load_checkpoint as load_checkpoint
from ddf_jax.convert.checkpoint import save_checkpoint as save_checkpoint
from ddf_jax.convert.files import CheckpointError as CheckpointError
from ddf_jax.convert.files import read_tensors as read_tensors
from ddf_jax.convert.files import write_tensors as write_tensors
