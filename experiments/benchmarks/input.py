"""Times the input pipeline of image classification on this machine's CPU.

    python -m experiments.benchmarks.input --out input_cpu.csv

Images of 500×375 and 2000×1500 pixels, JPEGs of quality 90 drawn here, become random crops of 224×224 pixels:

- `bare`: a loop that decodes, crops and resizes with pillow, one image after the other, to uint8 arrays;
- `pipeline`: the batches of a training run with `augment` imagenet, which are shuffled, flipped, float32 and
  normalised as well;
- `pipeline_draft`: the same with `crop.draft`.

They take turns, and the clock is the processor time of all threads: `images_per_core_second` is what one core does.

`loop` rows are of the wall clock and go through the batches on the devices of a training run: `stream` takes the
pipeline's batches, `empty_step` also puts them on the device, and `model_step` waits 1.5 times as long as `stream`
takes for a batch, as a training step on an accelerator would. `wait_share` is the share of the time that it waits
for a batch.
"""

import argparse
import contextlib
import dataclasses
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from ddf_jax.data.augmentation_config import CropConfig
from ddf_jax.data.batches import BatchIterator
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.pipeline import train_iterator
from ddf_jax.data.transforms import RandomResizedCrop
from ddf_jax.files import write_atomically
from ddf_jax.training.devices import data_mesh, device_batches
from experiments.benchmarks.rows import Row, row_environment, to_csv
from pallas_kernels.tuning.timing import Program, time_programs

SIDE = 224
COPIES = 49  # links to each image: an index of a small set is slow to shuffle
LARGE = 8  # images of 2000×1500 pixels, and a batch of them
MODEL_STEP = 1.5  # times the input's time per batch


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.input",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv file to write")
    parser.add_argument("--images", type=int, default=128, help="of 500×375 pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="images (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each program (default: %(default)s)")
    options = parser.parse_args(argv)
    rows = measure(options.images, options.batch, options.batches, options.rounds)
    if options.out is not None:
        write_atomically(options.out, to_csv(rows))
    print(to_csv(rows), end="")
    return 0


def measure(images: int = 128, batch: int = 32, batches: int = 8, rounds: int = 9) -> list[Row]:
    """The rows of `per_core` for both sizes of images, and those of `loops`.

    Args:
        images: of 500×375 pixels.
        batch: images.
        batches: of a turn.
        rounds: turns of each program.
    """
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "500x375", Path(folder) / "2000x1500"
        write_images(small, 500, 375, images, COPIES)
        write_images(large, 2000, 1500, LARGE)
        return (
            per_core(small, batch, batches, rounds)
            + per_core(large, LARGE, 2, rounds)
            + loops(small, batch, batches, rounds)
        )


def to_table(rows: Sequence[Row]) -> str:
    """Images per second of a core next to the bare loop; of the loops all cores' and the share that they wait."""
    lines = []
    for row in rows:
        if row["of_bare"] is None:
            speed = f"{row['images_per_second']:8.0f} images/s, waits {row['wait_share']:.1%}"
        else:
            speed = f"{row['images_per_core_second']:8.0f} images/s a core, {row['of_bare']:.2f}× the bare loop"
        lines.append(f"{row['implementation']:16}{row['image']:12}{speed}")
    return "\n".join(lines) + "\n"


def per_core(folder: Path, batch: int, batches: int, rounds: int) -> list[Row]:
    """A row for `bare` and each pipeline: images per second of one core."""
    config = DataConfig(folder=folder, image_size=SIDE)
    draft = dataclasses.replace(config, crop=CropConfig(draft=True))
    files = sorted((folder / "train").rglob("*.jpg"))
    count = batch * batches
    runs = {
        "bare": lambda: bare([files[index % len(files)] for index in range(count)]),
        "pipeline": lambda: take(config, batch, batches),
        "pipeline_draft": lambda: take(draft, batch, batches),
    }
    programs = {
        name: Program(run, functools.partial(_seconds, run, time.process_time), "host", 0) for name, run in runs.items()
    }
    seconds = time_programs(programs, rounds)
    bare_rate = count / statistics.median(seconds["bare"])
    rows = []
    for name, times in seconds.items():
        rate = count / statistics.median(times)
        row = _row(name, folder.name, batch, rounds)
        rows.append(row | {"images_per_core_second": rate, "of_bare": rate / bare_rate})
    return rows


def loops(folder: Path, batch: int, batches: int, rounds: int) -> list[Row]:
    """A row for each loop over the batches: images per second of the wall clock, and the share that it waits."""
    config = DataConfig(folder=folder, image_size=SIDE)
    mesh = data_mesh(jax.devices()[:1])
    times: dict[str, list[tuple[float, float]]] = {"stream": [], "empty_step": [], "model_step": []}
    for _ in range(rounds):
        with _stream(config, batch) as stream:
            times["stream"].append(_loop(lambda stream=stream: next(stream), batches, 0.0))
        step = MODEL_STEP * times["stream"][-1][0] / batches
        for name, seconds in (("empty_step", 0.0), ("model_step", step)):
            with (
                _stream(config, batch) as stream,
                contextlib.closing(device_batches(stream, mesh)) as ahead,
            ):
                times[name].append(_loop(lambda ahead=ahead: next(ahead), batches, seconds))
    return [
        _row(name, folder.name, batch, rounds)
        | {
            "images_per_second": batch * batches / statistics.median(whole for whole, _ in found),
            "wait_share": statistics.median(waited / whole for whole, waited in found),
        }
        for name, found in times.items()
    ]


def bare(files: Sequence[Path]) -> list[np.ndarray]:
    """The last 32 of the crops, which is as many as a batch keeps."""
    crop, rng = RandomResizedCrop(SIDE), np.random.default_rng(0)
    crops = []
    for file in files:
        image = Image.open(file).convert("RGB")
        top, left, height, width = crop.crop(rng).box(image.height, image.width)
        part = image.crop((left, top, left + width, top + height))
        crops = [*crops[-31:], np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR))]
    return crops


def take(config: DataConfig, batch: int, batches: int) -> None:
    """The last batches of the endless sequence, so that nothing is prepared ahead of the measurement or after it."""
    with _stream(config, batch) as stream:
        stream.set_state({"step": len(stream) - batches})
        for _ in range(batches):
            next(stream)


def write_images(folder: Path, width: int, height: int, count: int, copies: int = 0) -> None:
    """JPEGs of quality 90 with as many bytes a pixel as a photo has: shapes of all sizes, and a sensor's noise."""
    rng = np.random.default_rng(0)
    for index in range(count):
        for split in ("train", "test"):
            path = folder / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if split == "train":
                Image.fromarray(photo(rng, width, height)).save(path, quality=90)
                for copy in range(copies):
                    path.with_stem(f"{index}_{copy}").hardlink_to(path)
            elif index < 2:
                Image.new("RGB", (8, 8)).save(path)


def photo(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Noise of all sizes with the spectrum of photos, each size in one colour, uint8 [H, W, 3]."""
    pixels = np.zeros((height, width, 3), np.float32)
    for level in range(1, 9):
        coarse = rng.normal(size=(3 * 2**level // 4 + 2, 2**level + 2)).astype(np.float32)
        grey = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        pixels += grey[..., None] * (1 + 0.3 * rng.normal(size=3)).astype(np.float32) * 1.5**-level
    pixels = (pixels - pixels.min()) / np.ptp(pixels) + 0.03 * rng.normal(size=(height, width, 1))
    return (255 * pixels.clip(0, 1)).astype(np.uint8)


@contextlib.contextmanager
def _stream(config: DataConfig, batch: int) -> Iterator[BatchIterator]:
    iterator = train_iterator(config, LabelledImages(), batch_size=batch, seed=0, normalized=False)
    with contextlib.closing(iterator):
        yield iterator


def _loop(read: Callable[[], object], batches: int, step: float) -> tuple[float, float]:
    """Seconds of some steps, and of these those that the loop waits for a batch."""
    for _ in range(4):  # what is prepared ahead is there from now on
        read()
        time.sleep(step)
    start, waited = time.perf_counter(), 0.0
    for _ in range(batches):
        before = time.perf_counter()
        read()
        waited += time.perf_counter() - before
        time.sleep(step)
    return time.perf_counter() - start, waited


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    before = clock()
    run()
    return clock() - before


def _row(name: str, size: str, batch: int, rounds: int) -> Row:
    shape = f"{batch}x{SIDE}x{SIDE}x3"
    measured = dict.fromkeys(("images_per_core_second", "of_bare", "images_per_second", "wait_share"))
    return {"implementation": name, "image": size, "shape": shape, "n": rounds, **measured} | row_environment(
        "pillow", "cpu"
    )


if __name__ == "__main__":
    sys.exit(main())
