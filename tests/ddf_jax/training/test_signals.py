import os
import signal
import threading

import pytest

from ddf_jax.training.devices import data_mesh
from ddf_jax.training.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_is_a_request_and_handlers_come_back(number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(number)
    with StopRequest(data_mesh()) as stop:
        assert not stop.poll()
        os.kill(os.getpid(), number)
        assert stop.poll()
        assert stop.poll()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(number)) == before
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
