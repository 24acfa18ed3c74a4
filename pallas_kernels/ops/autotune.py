"""Kernel configs by measuring: the search around the heuristic's config, and the files of its winners.

`python -m experiments.tune` runs the search on a GPU. Its winners lie in two folders, one file per device model:

* `tuned/` next to this file holds those that the package ships, and is never written to by it;
* `cache_folder()` holds the user's own. They take precedence.
"""

import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pallas_kernels.ops import heuristics
from pallas_kernels.ops.config import ArgShape, BlockConfig, KernelName, validate_config, validate_launch
from pallas_kernels.ops.device import device_of_platform
from pallas_kernels.ops.spec import FilterSpec

CACHE_VARIABLE = "DDF_JAX_CACHE"  # overrides the folder of the user's own configs
SHIPPED = Path(__file__).with_name("tuned")

# Multiply-adds per program and lane: with more, a compilation takes most of a minute.
MAX_TERMS = 2 * heuristics.UNROLLED_TERMS

Configs = dict[tuple[ArgShape, KernelName], BlockConfig]

Measure = Callable[[BlockConfig], float]
"""Seconds of a kernel with this config. It raises where the kernel cannot run so, or computes wrong values."""


def choose_config(shape: ArgShape, kernel: KernelName) -> BlockConfig:
    """The fastest config measured on the device in use, or the heuristic's."""
    return tuned_configs(device_of_platform("cuda").kind).get((shape, kernel)) or heuristics.heuristic_config(
        shape, kernel
    )


class Tuning(NamedTuple):
    """The result of a search.

    Args:
      best: the fastest config.
      seconds: of the fastest.
      heuristic_seconds: of the heuristic's config; NaN where that failed.
      tried: how many configs were measured.
      failed: how many of them failed.
    """

    best: BlockConfig
    seconds: float
    heuristic_seconds: float
    tried: int
    failed: int


def autotune(shape: ArgShape, kernel: KernelName, measure: Measure) -> Tuning:
    """Measures the candidates and returns the fastest. Those that fail are logged and skipped.

    Raises:
      RuntimeError: every candidate failed.
    """
    best, fastest, tried, failed, heuristic_seconds = None, math.inf, 0, 0, math.nan
    for config in candidates(shape, kernel):
        tried += 1
        try:
            validate_launch(shape, config, kernel)
            seconds = measure(config)
        except Exception as error:
            failed += 1
            logging.getLogger(__name__).info("%s %s: %s", kernel, config, error)
            continue
        heuristic_seconds = seconds if tried == 1 else heuristic_seconds
        if seconds < fastest:  # so that a NaN never wins
            best, fastest = config, seconds
    if best is None:
        raise RuntimeError(
            f"All {tried} configs of the {kernel} kernel failed for {shape}; set logging to INFO for the reasons."
        )
    return Tuning(best, fastest, heuristic_seconds, tried, failed)


def candidates(shape: ArgShape, kernel: KernelName) -> Iterator[BlockConfig]:
    """The heuristic's config, then those with other patch sizes and numbers of warps."""
    first = heuristics.heuristic_config(shape, kernel)
    (step_h, step_w), (height, width) = shape.tile_step(kernel), shape.tiled_size(kernel)
    heights = [1, 2, 4, 7, 8]
    if kernel == "dfilters":  # it streams down patches of any height
        heights = [math.ceil(height / parts) for parts in (1, 2, 3, 4, 8)]
    terms = first.block_taps_h * first.block_taps_w * shape.spec.scale**2
    found: set[BlockConfig] = set()
    for tile_h, tile_w, num_warps in itertools.product(heights, (1, 2, 4), (1, 2, 4)):
        if kernel != "dfilters" and tile_h * tile_w * terms > MAX_TERMS:
            continue
        config = dataclasses.replace(
            first,
            tile_h=step_h * min(tile_h, height),
            tile_w=step_w * min(tile_w, width),
            num_warps=num_warps,
            block_patches=max(1, first.block_patches * num_warps // first.num_warps),
        )
        found.add(config)
    yield first
    yield from sorted(found - {first}, key=lambda config: (config.num_warps, config.tile_h, config.tile_w))


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
