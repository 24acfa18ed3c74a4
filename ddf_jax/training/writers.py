"""What a run says of its progress: `metrics.jsonl`, TensorBoard events, and a bar and lines for people."""

import json
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from ddf_jax.files import write_atomically

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends rows to `metrics.jsonl` and TensorBoard's events in a run's folder.

    Rows of steps after `step`, from where this launch goes on, are dropped first: each step is told once, by the launch
    whose result lasted.
    """

    def __init__(self, workdir: Path, step: int) -> None:
        path = workdir / METRICS_FILE
        kept = [row for row in read_metrics(workdir) if row["step"] <= step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(str(workdir), purge_step=step + 1, flush_secs=10)

    def write(self, step: int, epoch: float, **values: float | None) -> None:
        """Adds one row. None stands for a number that is not finite."""
        self._file.write(json.dumps({"step": step, "epoch": epoch, **values}, allow_nan=False) + "\n")
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what is still in memory."""
        self._file.close()
        self._board.close()


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`; a last line that a kill cut short is left out."""
    path = workdir / METRICS_FILE
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Progress:
    """A bar over the images of a run on a terminal: images per second, time left, and what the task says."""

    def __init__(self, *, images_done: int, images: int) -> None:
        disable = True if jax.process_index() else None  # None: no bar where the output is not a terminal
        self._bar = tqdm(
            total=images, initial=images_done, unit="img", unit_scale=True, dynamic_ncols=True, disable=disable
        )

    def advance(self, images: int, text: str) -> None:
        """Counts images trained on."""
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(images)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


def say(line: str) -> None:
    """Prints a line, once for all processes, above a bar where there is one."""
    if jax.process_index() == 0:
        tqdm.write(line)
