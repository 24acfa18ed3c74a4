"""`ddf launch`."""

import dataclasses
from typing import Annotated

import tyro

from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class LaunchCommand:
    """Run another command in several processes on this machine, which train one model together.

    The command follows `--`. On several machines a launcher starts it: Slurm, MPI, Kubernetes.

    Examples:
      ddf launch --processes 2 -- train digits
      ddf launch --processes 2 --devices-per-process 4 -- train imagenet_ddf_resnet50 --mesh.fsdp 8
    """

    command: tyro.conf.Suppress[tuple[str, ...]]
    processes: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """How many processes."""
    devices_per_process: Annotated[int | None, tyro.conf.arg(metavar="M")] = None
    """GPUs of each process, or without GPUs, devices of its CPU; default: all GPUs in equal parts, or one device."""
    json: tyro.conf.Suppress[bool] = False

    def run(self) -> CommandResult:
        from ddf_jax.launcher import launch

        return CommandResult(None, "", launch(self.command, self.processes, self.devices_per_process))
