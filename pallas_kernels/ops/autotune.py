"""Kernel configs by measuring: the search around the heuristic's config, and the files of its winners.

`python -m experiments.tune` runs the search on a GPU. Its winners lie in two folders, one file per device model:

* `tuned/` next to this file holds those that the package ships, and is never written to by it;
* `cache_folder()` holds the user's own. They take precedence.

Those of `use_configs` take precedence over both.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from pallas_kernels.ops import heuristics
from pallas_kernels.ops.config import ArgShape, BlockConfig, KernelName, validate_config
from pallas_kernels.ops.device import device_of_platform
from pallas_kernels.ops.spec import FilterSpec

CACHE_VARIABLE = "DDF_JAX_CACHE"  # overrides the folder of the user's own configs
SHIPPED = Path(__file__).with_name("tuned")

SEPARATE_KERNELS: tuple[KernelName, ...] = ("dspatial", "dchannel")  # what dfilters stands for

Configs = dict[tuple[ArgShape, KernelName], BlockConfig]

Candidate = tuple[KernelName, BlockConfig]

Measure = Callable[[Sequence[Candidate]], Iterable[float | Exception]]
"""Seconds of each candidate, in order; an error in place of one that cannot run, or that computes wrong values."""


_used = jax.make_user_context(default_value=())  # the items of `use_configs`: what is compiled depends on them
_requests: list[dict[tuple[ArgShape, KernelName], None]] = []


def choose_config(shape: ArgShape, kernel: KernelName) -> BlockConfig:
    """The config of `use_configs`, the fastest one measured on the device in use, or the heuristic's."""
    for requested in _requests:
        requested[shape, kernel] = None
    known = tuned_configs(device_of_platform("cuda").kind) | dict(_used.value)
    return known.get((shape, kernel)) or heuristics.heuristic_config(shape, kernel)


@contextlib.contextmanager
def use_configs(configs: Mapping[tuple[ArgShape, KernelName], BlockConfig]) -> Iterator[None]:
    """Programs that are called within it are compiled with these configs, anew where they were with others."""
    with _used((*_used.value, *configs.items())):
        yield


@contextlib.contextmanager
def requested_kernels() -> Iterator[dict[tuple[ArgShape, KernelName], None]]:
    """The kernels of the programs that are lowered within it."""
    requested: dict[tuple[ArgShape, KernelName], None] = {}
    _requests.append(requested)
    try:
        yield requested
    finally:
        _requests[:] = [others for others in _requests if others is not requested]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The result of a search.

    Args:
      kernel: the kernel.
      shape: its call.
      measured: seconds with each config, the heuristic's first; NaN where it failed.
    """

    kernel: KernelName
    shape: ArgShape
    measured: dict[BlockConfig, float]

    @property
    def best(self) -> BlockConfig:
        """The fastest config.

        Raises:
          RuntimeError: every config failed.
        """
        works = {config: seconds for config, seconds in self.measured.items() if not math.isnan(seconds)}
        if not works:
            raise RuntimeError(
                f"All {len(self.measured)} configs of the {self.kernel} kernel failed for {self.shape}; set logging to "
                "INFO for the reasons."
            )
        return min(works, key=works.__getitem__)

    @property
    def seconds(self) -> float:
        """Of the fastest config."""
        return self.measured[self.best]

    @property
    def heuristic_seconds(self) -> float:
        """Of the heuristic's config; NaN where that failed."""
        return next(iter(self.measured.values()))

    @property
    def failed(self) -> int:
        """How many configs failed."""
        return sum(map(math.isnan, self.measured.values()))


def search(shape: ArgShape, kernels: Sequence[KernelName], measure: Measure) -> dict[KernelName, Tuning]:
    """Searches the config of each kernel in two steps: the tile, then the number of warps of the fastest tile.

    Each step measures the candidates of all kernels together. Those that fail are logged. With dfilters, the kernels
    that it stands for are measured too, with the heuristic's config.
    """
    kernels = kernels[::-1]  # the last take longest to compile
    others: tuple[KernelName, ...] = SEPARATE_KERNELS if "dfilters" in kernels else ()
    tunings: dict[KernelName, Tuning] = {kernel: Tuning(kernel, shape, {}) for kernel in (*kernels, *others)}
    tiles: dict[KernelName, list[BlockConfig]] = {kernel: tile_candidates(shape, kernel) for kernel in kernels}
    tiles |= {kernel: [heuristics.heuristic_config(shape, kernel)] for kernel in others}
    _measure(tunings, [(kernel, config) for kernel, configs in tiles.items() for config in configs], measure)
    searched = [found for kernel, found in tunings.items() if kernel in kernels and found.failed < len(found.measured)]
    _measure(tunings, [(found.kernel, config) for found in searched for config in warp_candidates(found.best)], measure)
    return tunings


def _measure(tunings: Mapping[KernelName, Tuning], candidates: Sequence[Candidate], measure: Measure) -> None:
    """Adds the times of the candidates to the tunings."""
    for (kernel, config), seconds in zip(candidates, measure(candidates), strict=True):
        if isinstance(seconds, Exception):
            logging.getLogger(__name__).info("%s %s: %s", kernel, config, seconds)
            seconds = math.nan
        tunings[kernel].measured[config] = seconds


def tile_candidates(shape: ArgShape, kernel: KernelName) -> list[BlockConfig]:
    """The heuristic's config, then those with other tiles that fit the registers, the largest first."""
    first = heuristics.heuristic_config(shape, kernel)
    (step_h, step_w), (height, width) = shape.tile_step(kernel), shape.tiled_size(kernel)
    heights = [1, 2, 4, 7]
    if kernel == "dfilters":  # it streams down patches of any height
        heights = [math.ceil(height / parts) for parts in (1, 2, 3, 4, 8)]
    tiles = {
        (step_h * min(tile_h, height), step_w * min(tile_w, width))
        for tile_h, tile_w in itertools.product(heights, (1, 2, 4))
    }
    others = [
        dataclasses.replace(first, tile_h=tile_h, tile_w=tile_w) for tile_h, tile_w in sorted(tiles, reverse=True)
    ]
    return [first, *(c for c in others if c != first and heuristics.fits_registers(shape, kernel, c))]


def warp_candidates(config: BlockConfig) -> list[BlockConfig]:
    """The config with other numbers of warps, as many patches for each."""
    return [
        dataclasses.replace(
            config, num_warps=warps, block_patches=max(1, config.block_patches * warps // config.num_warps)
        )
        for warps in (1, 2, 4)
        if warps != config.num_warps
    ]


def cache_folder() -> Path:
    """The folder of the user's own configs: $DDF_JAX_CACHE, or ddf-jax in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ddf-jax"


def tuned_file(folder: Path, device_kind: str) -> Path:
    """`nvidia_h200.json` in the folder, for "NVIDIA H200"."""
    return folder / f"{re.sub('[^a-z0-9]+', '_', device_kind.lower())}.json"


@functools.cache
def tuned_configs(device_kind: str) -> Configs:
    """The measured configs of a device model, the user's own before the shipped. Unusable files only warn."""
    found: Configs = {}
    for folder in (SHIPPED, cache_folder()):
        try:
            found |= read_tuned_configs(folder, device_kind)
        except ValueError as error:
            logging.getLogger(__name__).warning("%s", error)
    return found


def read_tuned_configs(folder: Path, device_kind: str) -> Configs:
    """The configs that a folder holds for a device model; none where it has no file of it.

    Raises:
      ValueError: the file holds something else, or configs that do not fit their kernels.
    """
    file = tuned_file(folder, device_kind)
    try:
        rows = json.loads(file.read_text()) if file.is_file() else []
        if not isinstance(rows, list):
            raise TypeError(f"a list was expected, got {type(rows).__name__}")
        return dict(map(_from_row, rows))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} must hold kernel configs of this version ({type(error).__name__}: {error}). Delete it; "
            "`python -m experiments.tune` writes it anew."
        ) from error


def write_tuned_configs(device_kind: str, configs: Mapping[tuple[ArgShape, KernelName], BlockConfig]) -> Path:
    """Adds configs to the user's own file of a device model, where they replace older ones, and returns that file."""
    everything = {**read_tuned_configs(cache_folder(), device_kind), **configs}
    rows = [
        {"kernel": kernel, "shape": dataclasses.asdict(shape), "config": dataclasses.asdict(config)}
        for (shape, kernel), config in everything.items()
    ]
    file = tuned_file(cache_folder(), device_kind)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(rows, indent=1) + "\n")
    temporary.replace(file)  # whole or not at all
    tuned_configs.cache_clear()
    return file


def _from_row(row: dict[str, Any]) -> tuple[tuple[ArgShape, KernelName], BlockConfig]:
    shape = ArgShape(**row["shape"] | {"spec": FilterSpec(**row["shape"]["spec"])})
    config, kernel = BlockConfig(**row["config"]), row["kernel"]
    validate_config(shape, config, kernel)
    return (shape, kernel), config
