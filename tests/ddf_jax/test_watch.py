import functools
import queue
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ddf_jax import watch
from ddf_jax.watch import ProcessWatch, relay

Losses = queue.Queue[tuple[int, int]]
Started = tuple[list[ProcessWatch], Losses]


class Store(dict[str, str]):
    """As the client of `jax.distributed`."""

    def key_value_set(self, key: str, value: str) -> None:
        self[key] = value

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        assert timeout_in_ms > 0
        return self[key]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[int], tuple[list[ProcessWatch], Losses]]]:
    """Watches of three processes, here in one, and (who noticed, whose end) of each loss."""
    for name, seconds in {"_BEAT_SECONDS": 0.04, "_SILENCE_SECONDS": 0.4, "_GRACE_SECONDS": 0.05}.items():
        monkeypatch.setattr(watch, name, seconds)
    watches, losses = list[ProcessWatch](), Losses()

    def start_first(count: int) -> Started:
        for index in range(count):
            end = functools.partial(lambda index, lost: losses.put((index, lost)), index)
            watches.append(ProcessWatch(index, 3, "localhost", store, end))
        return watches, losses

    yield start_first
    for each in watches:
        each.leave()
    for thread in threading.enumerate():
        if thread.name == "watch":
            thread.join()


@pytest.mark.parametrize("lost", [0, 1])
def test_the_end_of_a_process_without_a_goodbye_is_known_to_all_others(start, lost: int):
    watches, losses = start(3)
    watches[lost].leave()
    others = {0, 1, 2} - {lost}
    assert {losses.get(timeout=5) for _ in others} == {(other, lost) for other in others}
    assert all(watches[other].lost.is_set() for other in others)


def test_a_goodbye_is_no_loss_and_nor_is_an_end_that_all_meet(start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "_GRACE_SECONDS", 0.1)
    watches, losses = start(3)
    watches[2].say_goodbye()
    watches[2].leave()
    with pytest.raises(queue.Empty):
        losses.get(timeout=0.2)
    assert not watches[0].lost.is_set()
    watches[1].leave()
    assert watches[0].lost.wait(5)
    watches[0].leave()  # within the grace
    with pytest.raises(queue.Empty):
        losses.get(timeout=0.2)


def test_a_process_that_never_came_or_is_silent_is_lost(start):
    _, losses = start(2)  # of three
    assert {losses.get(timeout=5) for _ in range(2)} == {(0, 2), (1, 2)}


def test_a_stranger_is_turned_away(start, store: Store):
    _, losses = start(3)
    with socket.create_connection(("localhost", int(store["ddf_jax/watch"].split()[0]))) as stranger:
        stranger.sendall(b"not-the-token 1\n")
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
    assert losses.empty()


def test_a_relay_passes_on_both_ways_but_not_the_other_end():
    with (
        socket.create_server(("localhost", 0)) as server,
        relay(f"localhost:{server.getsockname()[1]}") as address,
        socket.socket(socket.AF_UNIX) as inner,
    ):
        inner.connect(address.removeprefix("unix:"))
        outer = server.accept()[0]
        inner.sendall(b"ping")
        assert outer.recv(4) == b"ping"
        outer.sendall(b"pong")
        assert inner.recv(4) == b"pong"
        outer.close()
        for _ in range(3):
            inner.sendall(b"ping")
        inner.settimeout(0.1)
        with pytest.raises(TimeoutError):
            inner.recv(1)
