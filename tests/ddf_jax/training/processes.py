"""Launches of the tiny recipe in processes of their own, and what they leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from ddf_jax.training.leaves import leaf_names

ROOT = Path(__file__).parents[3]


class Launch(NamedTuple):
    """A finished process."""

    returncode: int
    out: str
    err: str


def start(workdir: Path, data_dir: Path, *options: str, **environment: str) -> "subprocess.Popen[str]":
    """Starts `launch.py` with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", Path(__file__).with_name("launch.py"), workdir, data_dir, *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", returncode: int = 0) -> Launch:
    """Waits for the end of a launch, which must be as expected."""
    try:
        out, err = process.communicate(timeout=800)
    finally:
        process.kill()
    assert process.returncode == returncode, (process.returncode, out, err)
    return Launch(process.returncode, out, err)


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, without what depends on the clock."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [without_times(row) for row in rows]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    """A row of metrics, without what depends on the clock."""
    return {name: value for name, value in row.items() if name != "images_per_second" and not name.endswith("_ms")}


def losses(workdir: Path) -> list[float]:
    """The loss of every training step."""
    return [row["train_loss"] for row in metrics(workdir) if "train_loss" in row]


def summary_of(workdir: Path) -> dict[str, Any]:
    """What a finished run wrote."""
    return json.loads((workdir / "summary.json").read_text())


def snapshot(workdir: Path) -> dict[Path, bytes]:
    """The bytes of every file of a run."""
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def saved_bits(workdir: Path, step: int) -> dict[str, bytes]:
    """Every array of a checkpoint by name: parameters, statistics, momenta, averages and random counters."""
    folder = workdir.absolute() / "checkpoints" / str(step)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        trees = {part.name: _restore(checkpointer, part) for part in sorted(folder.iterdir()) if part.is_dir()}
    return {name: _bits(leaf) for name, leaf in zip(leaf_names(trees), jax.tree.leaves(trees), strict=True)}


def _restore(checkpointer: ocp.Checkpointer, folder: Path) -> Any:
    """The tree on one device, whatever processes and devices wrote it."""
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    saved: Any = checkpointer.metadata(folder).item_metadata
    abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), saved.tree)
    return checkpointer.restore(folder, args=ocp.args.StandardRestore(abstract))


def _bits(leaf: jax.Array) -> bytes:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes()
