import contextlib
import os
import signal
import threading
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from ddf_jax.errors import RunError, StoppedError
from ddf_jax.training import processes
from ddf_jax.training.devices import data_mesh
from ddf_jax.training.processes import (
    StopRequest,
    check_same_in_all_processes,
    digests,
    ending_together,
    initialize_processes,
)

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
SLURM = {
    **{"SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "node[001-002]", "SLURM_NTASKS": "8", "SLURM_PROCID": "5"},
    **{"SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "8"},
}
MPI = {
    **{"OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.0.0.1:34911", "OMPI_COMM_WORLD_SIZE": "2"},
    **{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
}
KUBERNETES = {"JAX_COORDINATOR_ADDRESS": "ddf-0.ddf:29400", "JAX_NUM_PROCESSES": "4", "JOB_COMPLETION_INDEX": "2"}


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The address, count, index and devices that processes were joined with, without joining any."""
    made: list[object] = []
    monkeypatch.setattr(processes, "_join", lambda *given: made.append(given))
    for name in (*ADDRESS, *SLURM, *MPI, *KUBERNETES):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        (ADDRESS, [("host:1234", 4, 3)]),
        (SLURM, [("node001:61441", 8, 5, [1])]),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, []),
        (MPI, [("10.0.0.1:61442", 2, 1, [0])]),
        (KUBERNETES, [("ddf-0.ddf:29400", 4, 2)]),
        ({"JOB_COMPLETION_INDEX": "2"}, []),
        (SLURM | {"JAX_COORDINATOR_ADDRESS": "host:1234"}, [("host:1234", 8, 5, [1])]),
    ],
)
def test_the_environment_names_the_processes_to_join(
    environment: dict[str, str], expected: list[object], joined: list[object], monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialize_processes()
    assert joined == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "host:1234"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID are not set"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "but JAX_COORDINATOR_ADDRESS is not set. Set all, or none"),
        (ADDRESS | {"JAX_PROCESS_ID": "4"}, "must be a number below `JAX_NUM_PROCESSES`, got 4 of 4"),
        (ADDRESS | {"JAX_NUM_PROCESSES": "two"}, "must be a number below `JAX_NUM_PROCESSES`, got 3 of two"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "JAX does not know this launcher of several processes. Set JAX_COORDINATOR_"),
    ],
)
def test_processes_that_cannot_be_joined_are_an_error(
    environment: dict[str, str], message: str, joined: list[object], monkeypatch: pytest.MonkeyPatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=message):
        initialize_processes()
    assert joined == []


def test_control_c_ends_a_process_that_waits_for_others(monkeypatch: pytest.MonkeyPatch):
    meanwhile: list[object] = []

    def wait(*_: object, **__: object) -> None:
        meanwhile.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(jax.distributed, "initialize", wait)
    processes._join("localhost:1234", 1, 0)
    assert meanwhile == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("seed", [1, 9])
def test_a_process_that_was_started_otherwise_is_named_in_all(seed: int, monkeypatch: pytest.MonkeyPatch):
    third = digests([f"seed {seed}", "jax 1"])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: np.stack([mine, mine, third]))
    refused = pytest.raises(RunError, match="must have the same recipe, but process 2 differs from process 0")
    with refused if seed == 9 else contextlib.nullcontext():
        check_same_in_all_processes({"recipe": "seed 1", "versions": "jax 1"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_a_request_and_handlers_come_back(number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, number)}
    ours = {each: signal.SIG_DFL if old == signal.SIG_IGN else old for each, old in handlers.items()}
    try:
        for each, handler in ours.items():  # which nohup or a shell's background may have ignored
            signal.signal(each, handler)
        with StopRequest(data_mesh()) as stop:
            assert not stop.poll()
            os.kill(os.getpid(), number)
            assert stop.poll()
            assert stop.poll()
        assert {each: signal.getsignal(each) for each in ours} == ours
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert f"{number.name}: saving before the end" in capfd.readouterr().err


def test_a_signal_that_is_ignored_at_the_start_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with StopRequest(data_mesh()) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.poll()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_interrupts_but_a_second_sigterm_waits():
    with StopRequest(data_mesh()) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.poll()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone():
    polled = []

    def run() -> None:
        with StopRequest(data_mesh()) as stop:
            polled.append(stop.poll())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert polled == [False]


def test_time_makes_a_checkpoint_due_too(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with StopRequest(data_mesh(), save_minutes=1) as stop:
        for seconds, due in ((59.0, False), (60.0, True)):
            clock[0] = seconds
            assert not stop.poll()
            assert stop.save_due == due
        stop.saved()
        assert not stop.poll()
        assert not stop.save_due


class Left:
    """A watch that notes whether its process has left the others."""

    def __init__(self) -> None:
        self.lost, self.left = threading.Event(), False

    def leave(self) -> None:
        self.left = True


@pytest.mark.parametrize(
    ("error", "leaves"), [(StoppedError("all stop"), False), (RunError("mine"), True), (ZeroDivisionError(), True)]
)
def test_a_process_that_fails_leaves_the_others_and_one_that_stops_with_them_does_not(
    error: Exception, leaves: bool, monkeypatch: pytest.MonkeyPatch
):
    watch = Left()
    monkeypatch.setattr(processes, "_watch", watch)
    monkeypatch.setattr(processes, "_BLAME_SECONDS", 0.01)
    monkeypatch.setattr(processes, "_keep_from_waiting", lambda: None)
    with pytest.raises(type(error)), ending_together():
        raise error
    assert watch.left == leaves


@pytest.mark.parametrize("wraps", [False, True])
def test_an_error_that_another_process_caused_is_not_shown(wraps: bool, monkeypatch: pytest.MonkeyPatch):
    watch = Left()
    monkeypatch.setattr(processes, "_watch", watch)
    shown = threading.Event()

    def fail() -> None:
        closed = ConnectionError("closed by peer")
        with contextlib.suppress(ConnectionError, RunError), ending_together():
            if wraps:
                raise RunError("Cannot save the checkpoint of step 18.") from closed
            raise closed
        shown.set()

    threading.Thread(target=fail, daemon=True).start()
    watch.lost.set()
    assert not shown.wait(0.1)  # the watch ends the process meanwhile
