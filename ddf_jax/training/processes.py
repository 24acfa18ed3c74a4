"""The processes of a run: how they join, compare what they were started with, agree on a stop, and end together."""

import atexit
import contextlib
import hashlib
import itertools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ddf_jax.errors import RunError, StoppedError, UserError
from ddf_jax.signals import STOP_SIGNALS
from ddf_jax.training.devices import InFlight, batch_shares, global_batch, replicated
from ddf_jax.watch import ProcessWatch, relay

_ADDRESS = "JAX_COORDINATOR_ADDRESS"
_NAMES_OF_PROCESSES = (_ADDRESS, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_OF_KUBERNETES = "JOB_COMPLETION_INDEX"  # the number of a pod in an indexed Job
_BLAME_SECONDS = 2.0  # in which the end of a process that made another fail becomes known
_JOIN_SECONDS = 300  # for all processes to start
_BARRIER_SECONDS = 24 * 60 * 60  # the watch ends the wait for a process that has ended
_HEARTBEAT_SECONDS = 40  # JAX's own: longer than that of the watch

_barriers = itertools.count()  # a name is good for one barrier
_watch: ProcessWatch | None = None  # of this process, in a run of several


def initialize_processes() -> None:
    """Joins this process to the others of a multi-process run; alone, it does nothing.

    Called once, before any other use of JAX. The environment names the run to join: `JAX_COORDINATOR_ADDRESS`
    (host:port of process 0), `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID` on any machine, the last of which an indexed Job
    of Kubernetes gives itself; or a launcher that JAX knows (Slurm's `srun`, Open MPI's `mpirun`) with more than one
    process. From then on the processes watch each other.

    Raises:
        RunError: some of the three are set, but not all, and no launcher gives the others.
    """
    environment = os.environ
    if jax.distributed.is_initialized():
        return
    given = {name: environment[name] for name in _NAMES_OF_PROCESSES if name in environment}
    if given and _OF_KUBERNETES in environment:
        given.setdefault("JAX_PROCESS_ID", environment[_OF_KUBERNETES])
    if len(given) == len(_NAMES_OF_PROCESSES):
        address, count, index = given.values()
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise RunError(f"`JAX_PROCESS_ID` must be a number below `JAX_NUM_PROCESSES`, got {index} of {count}.")
        _join(address, int(count), int(index))
    elif any(int(environment.get(name, "1")) > 1 for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        from jax._src.clusters import ClusterEnv  # `jax.distributed.initialize` asks it, and does not tell

        found = ClusterEnv.auto_detect_unset_distributed_params(given.get(_ADDRESS), None, None, None, None, None)
        address, count, index, local_device_ids = found
        if address is None or count is None or index is None:
            raise RunError(
                f"JAX does not know this launcher of several processes. Set {', '.join(_NAMES_OF_PROCESSES)}."
            )
        _join(address, count, index, local_device_ids)
    elif given:
        missing = [name for name in _NAMES_OF_PROCESSES if name not in given]
        raise RunError(
            f"Several processes need all of {', '.join(_NAMES_OF_PROCESSES)}, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set. Set all, or none to train with one process."
        )


def check_same_in_all_processes(facts: Mapping[str, str]) -> None:
    """Compares what the processes of a run were started with; for all processes.

    Args:
        facts: names and values; a process may lack none.

    Raises:
        RunError: in all processes, where a value differs in one.
    """
    if jax.process_count() == 1:
        return
    of_all = multihost_utils.process_allgather(digests(facts.values()))  # [processes, facts]
    for name, values in zip(facts, of_all.T, strict=True):
        if others := [str(index) for index, value in enumerate(values) if value != values[0]]:
            raise RunError(
                f"All processes of a run must have the same {name}, but process {', '.join(others)} differs from "
                f"process 0. Start the same command everywhere."
            )


def digests(values: Iterable[str]) -> np.ndarray:
    """A number for each value, uint32 [n], by which processes compare what is too long to send."""
    return np.array([int.from_bytes(hashlib.sha256(value.encode()).digest()[:4]) for value in values], np.uint32)


def gather_json(value: Any) -> list[Any]:
    """The values of all processes, in their order; for all processes. A value is what JSON has."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(data)], np.int32)).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    of_all = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [json.loads(row[:size].tobytes()) for row, size in zip(of_all, sizes, strict=True)]


def wait_for_all_processes() -> None:
    """Ends when all processes of the run have called it; for all processes.

    Called before the first sum over all devices after a compilation: Gloo waits 30 s for a process that compiles
    longer than another, and then fails.
    """
    if jax.process_count() > 1:
        _joined().client.wait_at_barrier(f"ddf_jax {next(_barriers)}", timeout_in_ms=_BARRIER_SECONDS * 1000)


class StopRequest:
    """Inside `with StopRequest(mesh) as stop:`, a signal only raises a flag; a second Ctrl-C interrupts as ever.

    Ctrl-C, SIGTERM, SIGUSR1 and SIGHUP ask the run to stop between two steps; all processes agree on the step.

    Args:
        mesh: the devices of all processes.
        save_minutes: since the last save, after which a save is due; 0: never.
    """

    def __init__(self, mesh: Mesh, *, save_minutes: float = 0.0) -> None:
        self._mesh = mesh
        self._asked = False
        self._save_seconds = 60 * save_minutes or math.inf
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._votes = InFlight[jax.Array]()
        self.saved()
        self._sum = jax.jit(lambda flags: jnp.sum(flags, axis=0), out_shardings=replicated(mesh))

    def poll(self) -> bool:
        """Whether to stop: the same in every process, which must all poll equally often.

        With several processes the result is that of a few calls ago: their flags are summed on the devices between two
        steps, and nobody waits for the sum.
        """
        is_time = jax.process_index() == 0 and time.monotonic() - self._saved_at >= self._save_seconds
        if jax.process_count() == 1:
            self.save_due = is_time
            return self._asked
        flags = np.full((batch_shares(self._mesh.local_mesh), 2), (self._asked, is_time), np.int32)
        votes = self._sum(global_batch({"flags": flags}, self._mesh)["flags"])
        stop = False
        for asked, due in self._votes.push(votes):
            stop |= bool(asked)
            self.save_due |= bool(due) and not self._stale
            self._stale = max(0, self._stale - 1)
        return stop

    def saved(self) -> None:
        """Starts the minutes to the next save; for all processes."""
        self._saved_at = time.monotonic()
        self.save_due = False
        """Whether a save is due, as `poll` saw it: the same in every process."""
        self._stale = len(self._votes)  # those on the way are of before

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python cannot handle signals
            for number in STOP_SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup does with SIGHUP
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # `print` may be what the signal interrupted, and cannot be entered twice.
        text = f"\n{signal.Signals(number).name}: saving before the end; Ctrl-C ends at once, without.\n"
        with contextlib.suppress(OSError):  # of a terminal that has gone
            os.write(2, text.encode())


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Inside, the error of one process ends the others too, and one that comes from the end of another is not shown."""
    try:
        yield
    except StoppedError:
        raise
    except BaseException as error:
        if _watch is not None:
            wait_for_blame(error)
            if _from_elsewhere(error):
                time.sleep(_BLAME_SECONDS)  # or the others, where they meet the same error, would blame this process
            _watch.leave()
            _keep_from_waiting()
        raise


def wait_for_blame(error: BaseException) -> None:
    """Gives the end of another process, which may be why this one failed, time to become known: then this ends too."""
    if _watch is not None and _from_elsewhere(error) and _watch.lost.wait(_BLAME_SECONDS):
        threading.Event().wait()  # the watch ends this process


def _from_elsewhere(error: BaseException | None) -> bool:
    """Whether another process may be the cause, as of an error of the network in a sum over all devices, or of a
    checkpoint that cannot be saved because of one."""
    if isinstance(error, UserError):
        return _from_elsewhere(error.__cause__)
    return isinstance(error, Exception)


def _keep_from_waiting() -> None:
    """Takes from JAX what it would wait for the others with at exit; a thread keeps it, for its end waits too."""
    state = _joined()
    kept = (state.client, state.service, state.preemption_sync_manager)
    state.client = state.service = state.preemption_sync_manager = None

    def keep(*_: object) -> None:
        threading.Event().wait()

    threading.Thread(target=keep, args=kept, daemon=True).start()


def _joined() -> Any:
    from jax._src.distributed import global_state  # no public name gives the store of keys and values

    return global_state


def _join(address: str, count: int, index: int, local_device_ids: Sequence[int] | None = None) -> None:
    global _watch
    again = "Start the same command everywhere: training resumes from its newest checkpoint."
    late = threading.Timer(
        _JOIN_SECONDS, _end, [f"not all of the {count} processes started within {_JOIN_SECONDS} s. {again}"]
    )
    late.daemon = True
    late.start()
    with contextlib.nullcontext(address) if index == 0 else relay(address) as reached, _ended_by_control_c():
        jax.distributed.initialize(
            reached,
            count,
            index,
            local_device_ids,
            initialization_timeout=2 * _JOIN_SECONDS,  # for JAX's own end is a dump of its stack, as with the heartbeat
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    late.cancel()
    if count > 1:
        host = address.rpartition(":")[0].strip("[]")
        _watch = ProcessWatch(
            index, count, host, _joined().client, lambda lost: _end(f"process {lost} of {count} has ended. {again}")
        )
        atexit.register(_watch.say_goodbye)


@contextlib.contextmanager
def _ended_by_control_c() -> Iterator[None]:
    """Lets Ctrl-C end this process while it waits in C++, where Python would heed it minutes later."""
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere Python cannot change what a signal does
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(line: str) -> None:
    """Ends this process from a thread, whatever the main one waits for."""
    print("\n" * sys.stderr.isatty() + f"ddf: {line}", file=sys.stderr, flush=True)
    os._exit(StoppedError.exit_status)
