"""Several processes of one command on this machine, which join each other as those of a cluster do."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddf_jax.errors import StoppedError, UserError
from ddf_jax.signals import STOP_SIGNALS

_GRACE_SECONDS = 60.0  # after the first that fails, in which the others end by themselves, and save
_POLL_SECONDS = 0.1
STOPPED = StoppedError.exit_status


def launch(words: Sequence[str], processes: int, devices_per_process: int | None = None) -> int:
    """Runs `ddf WORDS` in several processes and returns the exit status of one that failed, or 0.

    Where one fails the others end with 75, as if they had been stopped: its own status is the one that counts.

    The first process has this one's terminal. Of the others only errors are shown that the first does not have. A
    signal that asks to end is passed to all of them.

    Args:
        words: of the command, such as `["train", "digits"]`.
        processes: how many.
        devices_per_process: GPUs of each process, or where there is none, devices that a CPU's cores share; default:
            the GPUs in equal parts, or one device.

    Raises:
        UserError: there are too few GPUs.
    """
    started: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(_end, started)
        stack.enter_context(_passing_signals(started))
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(processes - 1)]
        for index, environment in enumerate(environments(processes, devices_per_process)):
            out, error = (subprocess.DEVNULL, errors[index - 1]) if index else (None, None)
            command = [sys.executable, "-m", "ddf_jax", *words]
            started.append(subprocess.Popen(command, env=os.environ | environment, stdout=out, stderr=error))
        statuses = _wait(started)
        for index, (status, file) in enumerate(zip(statuses[1:], errors, strict=True), 1):
            if status != statuses[0]:
                file.seek(0)
                for line in file.read().decode(errors="replace").splitlines():
                    print(f"process {index}: {line}", file=sys.stderr)
    return max(statuses, key=lambda status: (status not in (0, STOPPED), status))


def environments(processes: int, devices_per_process: int | None = None) -> list[dict[str, str]]:
    """What each of some processes on this machine has in its environment to join the others and have its devices.

    Raises:
        UserError: there are too few GPUs.
    """
    if processes < 1:
        raise UserError(f"`processes` must be at least 1, got {processes}.")
    if devices_per_process is not None and devices_per_process < 1:
        raise UserError(f"`devices_per_process` must be at least 1, got {devices_per_process}.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    gpus = visible_gpus(os.environ)
    each = devices_per_process or max(1, len(gpus) // processes)
    if gpus and processes * each > len(gpus):
        raise UserError(
            f"There must be a GPU for each device, got {len(gpus)} for {processes} processes of {each}. Start fewer, "
            f"or use the CPU: JAX_PLATFORMS=cpu."
        )
    found = []
    for index in range(processes):
        devices = {"JAX_NUM_CPU_DEVICES": str(each)}
        if gpus:
            devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[index * each : (index + 1) * each])}
        if processes > 1:
            devices |= {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
            devices |= {"JAX_PROCESS_ID": str(index)}
        found.append(devices)
    return found


def visible_gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that a process may use, as CUDA_VISIBLE_DEVICES names them; none where JAX is told to use the CPU.

    >>> visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}), visible_gpus({"JAX_PLATFORMS": "cpu"})
    (['2', '3'], [])
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & {*platforms.split(",")}:
        return []
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        return names[: names.index("-1")] if "-1" in names else [name for name in names if name]
    return list(map(str, range(sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in devices.iterdir()))))


def _has_terminal() -> bool:
    """Whether this process and its children are what a terminal sends Ctrl-C to, wherever their input comes from."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _wait(started: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Waits for all; once one has failed the others have some time to end, and are ended then."""
    deadline = None
    while any(process.poll() is None for process in started):
        if deadline is None and any(process.returncode for process in started):
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            _end(started)
        time.sleep(_POLL_SECONDS)
    return [128 - status if status < 0 else status for status in (process.wait() for process in started)]


def _end(started: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ends those that still run, the slow ones by force."""
    running = [process for process in started if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _passing_signals(started: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    """Passes on what asks to end, but for the Ctrl-C of a terminal, which all processes get from it.

    A signal that comes while they are started reaches those that are there, whose end is that of all.
    """

    def pass_on(number: int, _: Any) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    if _has_terminal():
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
