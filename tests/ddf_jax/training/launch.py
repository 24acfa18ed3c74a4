"""The tiny recipe that these tests train, here or in a process of its own that sends itself a signal:

`python launch.py WORKDIR DATA_DIR [--group loss] [--signal SIGKILL --at step:7]`.
"""

import argparse
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.errors import RunError
from ddf_jax.training import checkpoint, evaluator
from ddf_jax.training import train as loop
from ddf_jax.training.processes import initialize_processes
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe
from ddf_jax.training.tasks.classification import Classification
from tests import compilation

TINY = Recipe(
    name="tiny",
    model=ModelConfig("resnet18", {"stem": "small", "width": 8, "blocks": (1, 1), "stochastic_depth": 0.3}),
    data=DataConfig(image_size=8, augment="shift"),
    optimizer=OptimizerConfig(learning_rate=0.2, warmup_epochs=0.2),
    task=Classification(label_smoothing=0.1),
    epochs=0.9,  # 20 steps; evaluated after 10, saved after 6, 12 and 18
    batch_size=64,
    evaluate_every=0.45,
    checkpoint_every=0.27,
    log_every=1,
)

# Groups of options under which a run is resumed to the bit.
GROUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "loss": {
        "task": Classification(loss="binary_cross_entropy", mixup=0.1, cutmix=1.0, confusion_matrix=True),
        "ema_decay": 0.99,
    },
    "optimizer": {
        "optimizer": OptimizerConfig(
            "lamb", 0.01, warmup_epochs=0.2, clip_norm=1.0, layer_decay=0.8, no_decay=("*.bias",)
        ),
    },
    "memory": {
        "microbatches": 2,
        "batch_norm_examples": 16,
        "model": ModelConfig("resnet18", dict(TINY.model.options) | {"dropout": 0.2, "rematerialize": True}),
    },
    "float16": {"dtype": "float16"},
}
GROUPS["all"] = {name: change for group in GROUPS.values() for name, change in group.items()}


def tiny_recipe(data_dir: Path, **changes: Any) -> Recipe:
    """`TINY` with its data in `data_dir` and some fields replaced."""
    return dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, data_dir=data_dir), **changes)


def signal_self(patch: pytest.MonkeyPatch, number: int, at: str) -> None:
    """Makes this process send itself a signal in its next launch.

    Args:
        at: `compile`; `step:N`, when step N's batch is asked for; `evaluation`, after one of its batches; `save:N`,
            when the checkpoint of step N lacks only its checksums and its name.
    """
    place, _, step = at.partition(":")
    device_batches, eval_batches = loop.device_batches, evaluator.eval_batches
    compile_eval_step, write_checksums = loop.compile_eval_step, checkpoint.write_checksums

    def send() -> None:
        os.kill(os.getpid(), number)

    def signalling_device_batches(*args: Any) -> Iterator[Any]:
        for batch in device_batches(*args):
            if batch.state_after["step"] == int(step):
                send()
            yield batch

    class SignallingEvalBatches:
        def __init__(self, *args: Any, **kwargs: Any):
            self.batches = eval_batches(*args, **kwargs)
            self.close = self.batches.close

        def __iter__(self) -> Iterator[Any]:
            for batch in self.batches:
                yield batch
                send()

    def signalling_compile(*args: Any) -> Any:
        send()
        return compile_eval_step(*args)

    def signalling_checksums(directory: Path) -> None:
        if directory.name == f"{step}.partial":
            send()
        write_checksums(directory)

    match place:
        case "compile":
            patch.setattr(loop, "compile_eval_step", signalling_compile)
        case "step":
            patch.setattr(loop, "device_batches", signalling_device_batches)
        case "evaluation":
            patch.setattr(evaluator, "eval_batches", SignallingEvalBatches)
        case "save":
            patch.setattr(checkpoint, "write_checksums", signalling_checksums)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--group", default="plain")
    parser.add_argument("--signal")
    parser.add_argument("--at")
    parser.add_argument("--compile-seconds", type=float, default=0.0, help="more than it takes")
    arguments = parser.parse_args()
    compilation.configure()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    initialize_processes()
    devices = None
    if "JAX_NUM_PROCESSES" not in os.environ:
        # As many as the tests have: their number sets that of XLA's threads, and so the order in which it sums.
        jax.config.update("jax_num_cpu_devices", 8)
        devices = jax.devices()[:1]
    if arguments.signal:
        signal_self(pytest.MonkeyPatch(), signal.Signals[arguments.signal], arguments.at)
    if arguments.compile_seconds:
        compile_train_step = loop.compile_train_step

        def compile_slowly(*args: Any) -> Any:
            time.sleep(arguments.compile_seconds)
            return compile_train_step(*args)

        loop.compile_train_step = compile_slowly
    try:
        loop.train(tiny_recipe(arguments.data_dir, **GROUPS[arguments.group]), arguments.workdir, devices=devices)
    except RunError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
