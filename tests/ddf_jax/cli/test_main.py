"""What `main` makes of a command's result and of its errors."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

from ddf_jax.cli import arguments, main
from ddf_jax.cli.command import Result
from ddf_jax.models import get_config
from ddf_jax.training.errors import NonFiniteError, RunError, StoppedError
from pallas_kernels import dynamic_filter

DO: list[Any] = []  # what the command below does


@dataclasses.dataclass(frozen=True)
class Do:
    """Do what the test says."""

    json: bool = False

    def run(self) -> Result:
        return DO[0]()


@pytest.fixture
def do(ddf, monkeypatch):
    monkeypatch.setitem(arguments.COMMANDS, "do", Do)

    def run(action, *words: str):
        DO[:] = [action]
        return ddf("do", *words)

    return run


def raising(error: BaseException):
    def action():
        raise error

    return action


def from_this_project(error: type[ValueError]):
    """An action in which the project's own code raises `error`."""
    namespace = {"__name__": "ddf_jax.training.loop", "error": error}
    exec("def action(): raise error('step 3: what happened.\\n  What to do.')", namespace)
    return namespace["action"]


def test_text_is_for_people_and_json_one_document(do):
    def action():
        print("on the way")
        return Result({"accuracy": 0.5}, "half")

    assert do(action) == (0, "on the way\nhalf\n", "")
    status, out, err = do(action, "--json")
    assert (status, err) == (0, "on the way\n")
    assert json.loads(out) == {"accuracy": 0.5}


def test_numbers_that_json_lacks_are_not_printed(do):
    with pytest.raises(ValueError, match="Out of range float"):
        do(lambda: Result(float("nan"), ""), "--json")


def test_a_command_may_choose_its_status(do):
    assert do(lambda: Result([], "1 failed", status=1)) == (1, "1 failed\n", "")


@pytest.mark.parametrize(
    ("error", "status"),
    [(RunError, 2), (ValueError, 2), (NonFiniteError, 1), (StoppedError, 75), (NotImplementedError, 2)],
)
def test_errors_of_this_project_are_one_line_and_a_status(do, error, status):
    assert do(from_this_project(error)) == (status, "", "ddf: step 3: what happened. What to do.\n")


def test_errors_of_the_models_and_operators_are_one_line_also_from_within_jit(do):
    def wrong_operator():
        jax.jit(lambda x: dynamic_filter(x, None, None))(np.zeros((1, 4, 4, 2), np.float32))

    assert do(wrong_operator)[2].startswith("ddf: `spatial` and `channel` must not both be None")
    assert do(lambda: get_config("resnet5"))[2].startswith("ddf: There is no model named 'resnet5'")


@pytest.mark.parametrize(
    "surprise",
    [
        raising(ValueError("somebody else's")),
        raising(RuntimeError("a bug")),
        lambda: np.zeros(3).reshape(2, 2),
        lambda: jax.jit(lambda x: x.reshape(2, 2))(np.zeros(3, np.float32)),
    ],
)
def test_surprises_keep_their_traceback(do, surprise):
    with pytest.raises((ValueError, RuntimeError, TypeError)) as caught:
        do(surprise)
    assert caught.traceback


def test_control_c_is_no_traceback(do):
    assert do(raising(KeyboardInterrupt())) == (130, "", "ddf: interrupted\n")


@pytest.mark.parametrize("words", [["models"], ["train", "--help"]])
def test_a_reader_that_has_gone_is_no_traceback(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import ddf_jax.cli, sys; sys.exit(ddf_jax.cli.main())", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert "BrokenPipe" not in done.stderr  # JAX may speak there too, as of a GPU plugin without its GPU


def test_arguments_come_from_the_process_by_default(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ddf", "trian"])
    assert main() == 2
    assert "no command 'trian'" in capsys.readouterr().err
