"""The parts of the GPU suite. `gpu_suite` runs each in a process of its own, so that a crash ends nothing else.

    python -m experiments.benchmarks.gpu_parts NAME ROWS TRIED OPTIONS

Prints a line of JSON before each case, `{"started": key}`, and its row after it. Skipped are the cases that have a row
without an error in the file ROWS, and those that have one after its first TRIED rows.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from experiments.benchmarks import gpu_cases
from experiments.benchmarks.gpu_cases import Case, Options
from experiments.benchmarks.rows import Row, read_rows, row_environment, row_error
from pallas_kernels.ops.choice import IMPLEMENTATIONS
from pallas_kernels.tuning.timing import COMPILED_TOGETHER, compile_together

OUT_OF_TIME = 3  # exit status of a part that has cases left
IDENTITY = ("part", "implementation", "shape", "dtype", "pass", "kernel")


class Part(NamedTuple):
    """Cases that share a process."""

    name: str
    seconds: float  # estimated, with `--quick` on an H100
    cases: Callable[[Options], Iterator[Case]]
    framework: str = "jax"


PARTS = (
    Part("checks", 70, gpu_cases.checks),
    Part("timings", 60, gpu_cases.timings),
    Part("steps", 110, gpu_cases.steps),
    Part("torch", 70, gpu_cases.torch, "torch"),
    Part("tune", 50, gpu_cases.tune),  # with `--quick`: what is left
)
BY_NAME = {part.name: part for part in PARTS}


def main(argv: Sequence[str]) -> int:
    name, file, tried, encoded = argv
    options = Options(**json.loads(encoded))
    config: Any = jax.config
    if config.jax_platforms and "cpu" not in config.jax_platforms.split(","):
        jax.config.update("jax_platforms", f"{config.jax_platforms},cpu")  # for the reference
    interpreted = {gpu_cases.INTERPRETED: "experiments.benchmarks.interpreted"} if options.dry_run else {}
    finished = False
    with mock.patch.dict(IMPLEMENTATIONS, interpreted):
        for row in run(BY_NAME[name], options, read_rows(Path(file)), int(tried)):
            print(json.dumps(row), flush=True)
            finished = row == {"finished": name}
    return 0 if finished else OUT_OF_TIME


def run(part: Part, options: Options, rows: Sequence[Row], tried: int) -> Iterator[Row]:
    """Rows of the cases that are not among `rows`, each announced; `{"finished": name}` after the last case."""
    cases = [case._replace(key={"part": part.name} | case.key) for case in part.cases(options)]
    if not cases:
        yield {"finished": part.name}
        return
    environment = row_environment(part.framework, working_device(part.framework))
    done = {
        identity(row)
        for number, row in enumerate(rows)
        if ("error" not in row or number >= tried) and row.get("device", environment["device"]) == environment["device"]
    }
    cases = [case for case in cases if identity(case.key) not in done]
    for first in range(0, len(cases), COMPILED_TOGETHER):
        batch = cases[first : first + COMPILED_TOGETHER]
        for case, compiled in zip(batch, compile_together([case.lower for case in batch]), strict=True):
            if options.out_of_time():
                return
            yield {"started": case.key}
            try:
                measured = case.measure(compiled.result())
            except Exception as error:
                measured = row_error(error)
            yield case.key | measured | environment
            if "error" in measured:
                working_device(part.framework)  # some errors leave a process without its GPU: that ends it
    yield {"finished": part.name}


def identity(row: Row) -> tuple[Any, ...]:
    """What makes two rows the same measurement, their device aside."""
    return tuple(row.get(name) for name in IDENTITY)


def working_device(framework: str) -> str:
    """The framework's name of its device, which has just computed something."""
    if framework == "jax":
        jax.block_until_ready(jnp.zeros(()) + 1)
        return jax.devices()[0].device_kind
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    (torch.zeros((), device="cuda") + 1).item()
    return torch.cuda.get_device_name()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
