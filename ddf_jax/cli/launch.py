"""`ddf launch`."""

import dataclasses
from typing import Annotated

import tyro

from ddf_jax.cli.command import CommandResult


@dataclasses.dataclass(frozen=True)
class LaunchCommand:
    """Run train or evaluate in several processes on this machine.

    The command follows `--`; its processes work on one model together. On several machines a launcher starts them:
    Slurm, MPI, Kubernetes.

    Examples:
      ddf launch --processes 2 -- train digits
      ddf launch --devices-per-process 4 -- train imagenet_rednet50 --mesh.fsdp 8
    """

    command: tyro.conf.Suppress[tuple[str, ...]]
    processes: Annotated[int, tyro.conf.arg(metavar="N")] = 2
    """Number of processes."""
    devices_per_process: Annotated[int | None, tyro.conf.arg(metavar="M")] = None
    """GPUs of a process, or without GPUs devices of its CPU; default: an equal part of the GPUs, or one device."""
    json: tyro.conf.Suppress[bool] = False

    def run(self) -> CommandResult:
        from ddf_jax.launcher import launch

        return CommandResult(None, "", launch(self.command, self.processes, self.devices_per_process))
