"""`ddf bench`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddf_jax.cli.checkout import require_checkout
from ddf_jax.cli.command import CommandResult

Name = Literal["operator", "layer", "model", "detection", "input", "scaling", "compile"]


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """Time operator, layers and networks; it needs a checkout.

    scaling fits how the operator's time grows with each of its sizes; compile is the time of compilation, input that of
    reading images. Programs take turns. A row has the median, the distance of the quartiles, the memory, the device,
    the versions and the machine's load at the start.

    Examples:
      ddf bench operator --against torch
      ddf bench model --against torch,timm --json
      ddf bench all --against torch --out experiments/results
    """

    name: Annotated[Name | Literal["all"], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]")] = "operator"
    """What to time: operator, layer, model, detection, input, scaling, compile or all."""
    against: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = ""
    """Packages to compare with: torch (operator, layer, model, detection), timm (model), torchvision (detection);
    none by default."""
    rounds: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Turns of each program; default: the benchmark's own."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/bench")
    """Folder of the rows: they are added to DIR/NAME_cpu.csv or DIR/NAME_gpu.csv."""
    peer_python: Annotated[str | None, tyro.conf.arg(metavar="PYTHON")] = None
    """A Python that has torchvision; default: this one."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the rows: `[{benchmark, median_ms, quartile_distance_ms, peak_bytes, n, device, versions, date,
    load_average, …}]`."""

    def run(self) -> CommandResult:
        require_checkout("bench")
        from experiments.benchmarks import bench

        peers = tuple(filter(None, self.against.split(",")))
        settings = bench.Settings(peers, self.rounds, self.peer_python)
        names = (*bench.BENCHMARKS,) if self.name == "all" else (self.name,)
        rows = bench.run(names, settings, self.out, lambda table: print(table, flush=True))
        return CommandResult(rows, "")
