"""What only whole processes can show: no TensorFlow, preparing in spite of races and kills, workers that follow."""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import train_iterator
from ddf_jax.data.tfds_source import TfdsSource
from ddf_jax.errors import DataError

ROOT = Path(__file__).parents[3]


def start(code: str, tmp_path: Path, *words: str, path: tuple[Path, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path), *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


TRAIN = """
import dataclasses, multiprocessing, sys
from pathlib import Path
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import eval_batches, train_iterator
config = DataConfig(data_dir=Path(sys.argv[1]), image_size=8, augment="imagenet")
training = dataclasses.replace(config, workers=int(sys.argv[2]))
iterator = train_iterator(training, LabelledImages(), batch_size=4, seed=0)  # which nobody closes
assert next(iterator)["image"].shape == (4, 8, 8, 1)
assert len(multiprocessing.active_children()) == training.workers
assert len(list(eval_batches(config, LabelledImages(), batch_size=120))) == 3
assert "tensorflow" not in sys.modules
print("prepared, trained, evaluated")
"""


def test_two_processes_may_prepare_at_once_import_no_tensorflow_and_end_quietly_with_an_open_iterator(tmp_path: Path):
    trap = tmp_path / "path" / "tensorflow"  # as if TensorFlow were installed
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise AssertionError('TensorFlow was imported')")
    processes = [start(TRAIN, tmp_path, workers, path=(trap.parent,)) for workers in ("0", "1")]
    assert [finish(process) for process in processes] == ["prepared, trained, evaluated\n"] * 2


KILLED = """
import os, signal, sys
from pathlib import Path
from ddf_jax.data.datasets.digits import Digits
from ddf_jax.data.tfds_source import TfdsSource
generate = Digits._generate_examples
def cut_short(self, counts, labels):
    yield from generate(self, counts[:10], labels[:10])
    os.kill(os.getpid(), signal.SIGKILL)
Digits._generate_examples = cut_short
TfdsSource("digits", "train", Path(sys.argv[1]))
"""


def test_a_preparation_killed_half_way_is_begun_again(tmp_path: Path):
    process = start(KILLED, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "digits" / "1.0.0").exists()
    assert list((tmp_path / "digits").iterdir())  # what the killed process had begun
    assert len(TfdsSource("digits", "train", tmp_path)) == 1437
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


WITH_WORKER = """
import multiprocessing, sys, time
from pathlib import Path
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import train_iterator
config = DataConfig(data_dir=Path(sys.argv[1]), image_size=8, workers=1)
iterator = train_iterator(config, LabelledImages(), batch_size=4, seed=0)
next(iterator)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def test_workers_do_not_outlive_a_killed_parent(digits: DataConfig):
    assert digits.data_dir is not None
    process = start(WITH_WORKER + "time.sleep(600)", digits.data_dir)
    assert process.stdout is not None
    (worker,) = map(int, process.stdout.readline().split())
    process.kill()
    try:
        process.communicate(timeout=30)  # its output ends when the last process that writes to it has ended
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"worker {worker} still runs 30 s after its parent was killed")


@pytest.mark.slow
def test_a_worker_that_was_killed_is_one_line(digits: DataConfig):
    config = dataclasses.replace(digits, workers=1)
    with contextlib.closing(train_iterator(config, LabelledImages(), batch_size=4, seed=0)) as batches:
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(DataError, match=r"Cannot prepare batch \d+: .*`--data.workers 0` prepares them"):
            list(itertools.islice(batches, 100))
