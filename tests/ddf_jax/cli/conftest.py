"""A command run in this process, and a tiny recipe in a file with a finished run of it."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ddf_jax.cli import main
from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.data.sources import open_source

RECIPE = """
from pathlib import Path

from ddf_jax.data.config import DataConfig
from ddf_jax.data.examples import LabelledImages
from ddf_jax.training.recipe import ModelConfig, OptimizerConfig, Recipe

recipe = Recipe(
    name="tiny",
    model=ModelConfig("ddf_resnet18", {{"stem": "small", "width": 8, "blocks": (1,)}}),
    data=DataConfig(image_size=8, augment="none", data_dir=Path({data_dir!r})),
    optimizer=OptimizerConfig(warmup_epochs=0.0),
    epochs=0.09,  # 2 steps
    batch_size=64,
)
"""


class Completed(NamedTuple):
    status: Any
    out: str
    err: str


@pytest.fixture
def ddf(capsys: pytest.CaptureFixture[str]) -> Callable[..., Completed]:
    """`ddf("train", "digits")` as a shell would see it."""

    def run(*words: str | Path) -> Completed:
        capsys.readouterr()
        try:
            status = main(list(map(str, words)))
        except SystemExit as stop:  # --help
            status = stop.code
        printed = capsys.readouterr()
        return Completed(status, printed.out, printed.err)

    return run


@pytest.fixture
def refused(ddf: Callable[..., Completed]) -> Callable[..., str]:
    """Checks that a wrong use is refused in one line, and returns that line."""

    def run(*words: str | Path) -> str:
        status, out, err = ddf(*words)
        assert status == 2, (status, err)
        assert out == ""
        assert err.startswith("ddf: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        return err

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a recipe of two steps."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))  # TFDS leaves an empty temporary folder behind
        open_source(DataConfig(data_dir=folder, image_size=8), LabelledImages(), "train")
    file = folder / "tiny.py"
    file.write_text(RECIPE.format(data_dir=str(folder)))
    return file


@pytest.fixture(scope="session")
def tiny_run(tiny: Path) -> Path:
    """The folder of a finished run of it, and next to it what the command printed: `run.out` and `run.err`."""
    folder = tiny.parent / "run"
    words = ["train", str(tiny), "--workdir", str(folder), "--optimizer.learning-rate", "0.05", "--json"]
    with (
        folder.with_suffix(".out").open("w") as out,
        folder.with_suffix(".err").open("w") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert main(words) == 0
    return folder
