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
from ddf_jax.cli.command import CommandResult, explained
from ddf_jax.errors import NonFiniteError, RunError, StoppedError, UserError

DO: list[Any] = []  # what the command below does


@dataclasses.dataclass(frozen=True)
class Do:
    """Do what the test states."""

    json: bool = False

    def run(self) -> CommandResult:
        return DO[0]()


@pytest.fixture
def do(ddf, monkeypatch):
    monkeypatch.setitem(arguments.COMMANDS, "do", f"{__name__}:Do")

    def run(action, *words: str):
        DO[:] = [action]
        return ddf("do", *words)

    return run


def raising(error: BaseException):
    def action():
        raise error

    return action


def test_text_is_for_people_and_json_one_document(do):
    def action():
        print("on the way")
        return CommandResult({"accuracy": 0.5}, "half")

    assert do(action) == (0, "on the way\nhalf\n", "")
    status, out, err = do(action, "--json")
    assert (status, err) == (0, "on the way\n")
    assert json.loads(out) == {"accuracy": 0.5}


def test_what_a_library_writes_to_the_descriptor_is_not_in_the_document(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def action():
        os.write(1, b"[Gloo] on the way\n")
        return CommandResult([], "")

    monkeypatch.setitem(arguments.COMMANDS, "do", f"{__name__}:Do")
    DO[:] = [action]
    assert main(["do", "--json"]) == 0
    assert capfd.readouterr() == ("[]\n", "[Gloo] on the way\n")
    assert main(["do"]) == 0
    assert capfd.readouterr() == ("[Gloo] on the way\n", "")


def test_numbers_that_json_lacks_are_not_printed(do):
    with pytest.raises(ValueError, match="Out of range float"):
        do(lambda: CommandResult(float("nan"), ""), "--json")


def test_a_command_may_choose_its_status(do):
    assert do(lambda: CommandResult([], "1 failed", status=1)) == (1, "1 failed\n", "")


@pytest.mark.parametrize(("error", "status"), [(UserError, 2), (RunError, 2), (NonFiniteError, 1), (StoppedError, 75)])
def test_errors_for_users_are_one_line_and_a_status(do, error, status):
    result = do(raising(error("step 3: what happened.\n  What to do.")))
    assert result == (status, "", "ddf: step 3: what happened. What to do.\n")


def test_a_file_that_cannot_be_read_or_written_is_one_line(do):
    action = raising(OSError(28, "No space left on device", "runs/x/metrics.jsonl"))
    line = "ddf: No space left on device (runs/x/metrics.jsonl). `--debug` shows where.\n"
    assert do(action) == (1, "", line)


@pytest.mark.parametrize("error", [UserError("wrong"), OSError(28, "No space left on device")])
def test_with_debug_every_error_keeps_its_traceback(do, error):
    with pytest.raises(type(error)) as caught:
        do(raising(error), "--debug")
    assert caught.value is error


def test_a_missing_kernel_backend_is_one_line(do):
    def action():
        with explained():
            raise NotImplementedError("No compiler here: pip install triton.")

    assert do(action) == (2, "", "ddf: No compiler here: pip install triton.\n")


def test_a_model_that_options_make_impossible_is_one_line(ddf, tiny, tmp_path):
    status, out, error = ddf("train", tiny, "--model.options", "combine=times", "--workdir", tmp_path / "run")
    assert (status, out.count("\n"), error.count("\n")) == (2, 1, 1)
    assert out.startswith("Compiling ddf_resnet18, ")
    assert "ddf_resnet18 with the options " in error
    assert "'times'" in error


@pytest.mark.parametrize(
    ("package", "extra"),
    [("grain.transforms", "train"), ("pycocotools", "detection"), ("h5py", "nyu"), ("torch.nn", "torch")],
)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(do, package, extra):
    error = ModuleNotFoundError(f"No module named {package!r}", name=package)
    name = package.partition(".")[0]
    message = f"ddf: {name} is not installed. Install it with: pip install 'ddf-jax[{extra}]'\n"
    assert do(raising(error)) == (2, "", message)


def test_without_tyro_ddf_states_what_to_install(monkeypatch, capsys):
    for module in [name for name in sys.modules if name.partition(".")[0] == "tyro" or "ddf_jax.cli." in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "tyro", None)
    assert main(["models"]) == 2
    assert capsys.readouterr().err == "ddf: tyro is not installed. Install it with: pip install 'ddf-jax[train]'\n"


@pytest.mark.parametrize(
    "surprise",
    [
        raising(ValueError("somebody else's")),
        raising(RuntimeError("a bug")),
        raising(ModuleNotFoundError("No module named 'ddf_jax.typo'", name="ddf_jax.typo")),
        lambda: np.zeros(3).reshape(2, 2),
        lambda: jax.jit(lambda x: x.reshape(2, 2))(np.zeros(3, np.float32)),
    ],
)
def test_surprises_keep_their_traceback(do, surprise):
    with pytest.raises((ValueError, RuntimeError, TypeError, ImportError)) as caught:
        do(surprise)
    assert caught.traceback


def test_control_c_is_no_traceback(do):
    assert do(raising(KeyboardInterrupt())) == (130, "", "ddf: interrupted\n")


def test_control_c_is_not_lost_where_python_drops_its_exception(do, monkeypatch: pytest.MonkeyPatch):
    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt

    def action():
        Interrupted()
        return CommandResult([], "")

    ends: list[int] = []
    monkeypatch.setattr(os, "_exit", ends.append)
    do(action)
    assert ends == [130]


def test_what_a_library_drops_stays_dropped_at_the_end(do, monkeypatch: pytest.MonkeyPatch):
    def drop_all(unraisable: Any) -> None:
        pass

    before = sys.unraisablehook
    do(lambda: CommandResult({}, ""))
    assert sys.unraisablehook is before
    monkeypatch.setattr(sys, "unraisablehook", before)  # put back at the end
    do(lambda: setattr(sys, "unraisablehook", drop_all) or CommandResult({}, ""))
    assert sys.unraisablehook is drop_all


@pytest.mark.parametrize("words", [["models", "resnet18"], ["--help"]])
def test_a_reader_that_has_gone_is_no_traceback(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ddf_jax.cli", *words]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert "BrokenPipe" not in done.stderr  # JAX may speak there too, as of a GPU plugin without its GPU


def test_arguments_come_from_the_process_by_default(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ddf", "trian"])
    assert main() == 2
    assert "no command 'trian'" in capsys.readouterr().err
