"""The benchmarks of `ddf bench` by name: each measures rows and makes a table of them."""

import importlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from ddf_jax.errors import UserError, one_line
from ddf_jax.files import make_folder
from experiments.benchmarks import (
    compilation,
    detection_cpu,
    detection_inputs,
    input,
    layers,
    operator,
    scaling,
    training_cpu,
)
from experiments.benchmarks.rows import Row, append_csv

TIMED_PARTS = (
    *("backbone", "proposals", "nms_4000", "roi_align_box", "box_head", "detections", "roi_align_mask"),
    *("paste_masks", "forward", "training_step"),
)
"""Of a detector: those without the parts that others contain."""

IMAGE, TRAINING_IMAGE, PROPOSALS = (400, 608), (256, 320), 500
"""Half of what `experiments.benchmarks.detection_cpu` measures by itself, which takes a quarter of an hour."""

PEERS = {
    "torch": "pip install 'ddf-jax[torch]'",
    "timm": "pip install timm",
    "torchvision": "pip install torchvision, or name a Python that has it: --peer-python PYTHON",
}
"""What brings each package."""


class Settings(NamedTuple):
    """Of a benchmark.

    Args:
        against: names of `PEERS`.
        rounds: turns of each program; None for the benchmark's own number.
        peer_python: a Python with torchvision; None for this one.
    """

    against: tuple[str, ...] = ()
    rounds: int | None = None
    peer_python: str | None = None

    def turns(self, own: int) -> int:
        return own if self.rounds is None else self.rounds


class Benchmark(NamedTuple):
    """What `ddf bench NAME` measures, and next to what."""

    peers: tuple[str, ...]
    measure: Callable[[Settings], list[Row]]
    to_table: Callable[[list[Row]], str]


def _operator(settings: Settings) -> list[Row]:
    peers = operator.TORCH_PEERS if "torch" in settings.against else ()
    return operator.measure(operator.BENCHMARK, settings.turns(25), peers)


def _layer(settings: Settings) -> list[Row]:
    return layers.measure(rounds=settings.turns(3), torch="torch" in settings.against)


def _model(settings: Settings) -> list[Row]:
    return training_cpu.measure(rounds=settings.turns(5), against=settings.against)


def _detection(settings: Settings) -> list[Row]:
    python = (settings.peer_python or sys.executable) if "torchvision" in settings.against else None
    commands = detection_cpu.peer_commands(python)
    if "torch" not in settings.against:
        del commands["torch_port"]
    inputs = detection_inputs.make_inputs(IMAGE, TRAINING_IMAGE, PROPOSALS)
    weights = detection_inputs.make_weights()
    return detection_cpu.measure(commands, inputs, weights, settings.turns(3), TIMED_PARTS)


BENCHMARKS = {
    "operator": Benchmark(("torch",), _operator, operator.to_table),
    "layer": Benchmark(("torch",), _layer, layers.to_table),
    "model": Benchmark(("torch", "timm"), _model, training_cpu.to_table),
    "detection": Benchmark(("torch", "torchvision"), _detection, detection_cpu.to_table),
    "input": Benchmark((), lambda settings: input.measure(rounds=settings.turns(3)), input.to_table),
    "scaling": Benchmark((), lambda settings: scaling.measure(rounds=settings.turns(11)), scaling.to_table),
    "compile": Benchmark((), lambda settings: compilation.measure(rounds=settings.turns(2)), compilation.to_table),
}


def run(names: Sequence[str], settings: Settings, folder: Path, report: Callable[[str], None]) -> list[Row]:
    """Measures benchmarks one after the other; the rows of each are added to its file before the next begins.

    Args:
        names: of `BENCHMARKS`.
        settings: whose peers each takes as far as it knows them.
        folder: of the files, NAME_PLATFORM.csv.
        report: gets the table of each.

    Raises:
        UserError: none of the benchmarks knows a peer, or a peer is not installed.
    """
    check_peers(names, settings)
    make_folder(folder)
    rows = []
    for name in names:
        benchmark = BENCHMARKS[name]
        known = tuple(peer for peer in settings.against if peer in benchmark.peers)
        found = benchmark.measure(settings._replace(against=known))
        file = folder / f"{name}_{jax.default_backend()}.csv"
        append_csv(file, found)
        report(f"{benchmark.to_table(found)}\n{len(found)} rows added to {file}")
        rows += [{"benchmark": name, **row} for row in found]
    return rows


def check_peers(names: Sequence[str], settings: Settings) -> None:
    """Raises a `UserError` for the first peer that none of the benchmarks knows or that cannot be imported."""
    known = list(dict.fromkeys(peer for name in names for peer in BENCHMARKS[name].peers))
    for peer in settings.against:
        if peer not in known:
            which = f"`ddf bench {names[0]}`" if len(names) == 1 else "`ddf bench`"
            raise UserError(f"{which} compares with {', '.join(known) or 'nothing else'}, got --against {peer}.")
        if jax.default_backend() != "cpu":
            raise UserError(f"--against {peer} is timed on CPUs only, and JAX computes on a {jax.default_backend()}.")
        if (reason := _missing(peer, settings.peer_python)) is not None:
            raise UserError(f"--against {peer} needs {peer}, which cannot be imported ({reason}). {PEERS[peer]}")


def _missing(peer: str, python: str | None) -> str | None:
    """Why a peer cannot be imported, here or, torchvision alone, in another Python."""
    if peer == "torchvision" and python is not None:
        done = subprocess.run([python, "-c", "import torchvision"], capture_output=True, text=True, check=False)
        return (done.stderr.strip().splitlines() or ["no reason"])[-1] if done.returncode else None
    try:
        importlib.import_module(peer)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        return one_line(error)
    return None
