"""`ddf plan`."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from ddf_jax.cli.command import CommandResult, explained


@dataclasses.dataclass(frozen=True)
class PlanCommand:
    """Compile a training step ahead of time for GPUs; none is needed.

    It prints collectives by kind, bytes per device, kernels by kind, and by category what a device launches and moves.
    RECIPE comes first, as for `ddf train`. JAX's CUDA plugin must be installed; recipes for ImageNet and COCO need no
    data.

    Examples:
      ddf plan imagenet_ddf_resnet50
      ddf plan imagenet_ddf_resnet50 --devices 16 --batch-size 2048 --json
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The name of a shipped recipe, or a .py file."""
    recipe: Annotated[Any, tyro.conf.FlagConversionOff, tyro.conf.arg(name="")]  # a `Recipe`, which imports JAX
    device: Literal["h200", "h100", "a100"] = "h200"
    """The GPU to compile for."""
    devices: int = 8
    """Number of GPUs that share the batch."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print `{recipe, device, devices, batch_size, dtype, jax, collectives, bytes_per_device, kernels, launches}`."""

    def run(self) -> CommandResult:
        from ddf_jax.plan import plan

        with explained():
            found = plan(self.recipe, device=self.device, devices=self.devices)
        return CommandResult(found, f"{self.recipe.name} on {self.devices} {self.device}:\n" + "\n".join(_lines(found)))


def _lines(found: dict[str, Any]) -> list[str]:
    sizes = {kind: f"{size / 2**30:.2f} GiB" for kind, size in found["bytes_per_device"].items()}
    launches = {
        category: f"{row['launches']} ({row['bytes'] / 1e9:.2f} GB, {row['roofline_us'] / 1e3:.2f} ms)"
        for category, row in found["launches"].items()
    }
    tables = {
        "collectives": found["collectives"],
        "per device": sizes,
        "kernels": found["kernels"],
        "launches": launches,
    }
    return [
        f"{title}: " + ", ".join(f"{name} {value}" for name, value in table.items()) for title, table in tables.items()
    ]
