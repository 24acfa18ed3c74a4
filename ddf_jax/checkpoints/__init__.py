"""Checkpoints in and out: `.safetensors` and PyTorch files, official names and ours."""

from ddf_jax.checkpoints.conversion import convert as convert
from ddf_jax.checkpoints.conversion import load_checkpoint as load_checkpoint
from ddf_jax.checkpoints.conversion import save_checkpoint as save_checkpoint
from ddf_jax.checkpoints.fitting import LoadReport as LoadReport
from ddf_jax.checkpoints.tensor_files import CheckpointError as CheckpointError
from ddf_jax.checkpoints.tensor_files import read_tensors as read_tensors
from ddf_jax.checkpoints.tensor_files import write_tensors as write_tensors
