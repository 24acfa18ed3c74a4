"""Sockets between the processes of a run: who has died, and a connection to process 0 that ends quietly."""

import contextlib
import secrets
import selectors
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_KEY = "ddf_jax/watch"
_CHUNK = 1 << 16  # bytes that a relay passes on at a time

_BEAT_SECONDS = 4.0  # between two signs of life
_SILENCE_SECONDS = 20.0  # without one, after which a process counts as dead
_GRACE_SECONDS = 5.0  # for an error that all processes meet to end them with its own message


class ProcessWatch:
    """Notices the end of another process of the run.

    Process 0 listens, the others connect to it, and each side sends a sign of life every 4 s. A connection that ends
    without a goodbye, or is silent for 20 s, means that its process has died; process 0 tells the others.

    Args:
        index: of this process.
        count: of all processes.
        host: of process 0.
        store: where process 0 leaves its port: the client of `jax.distributed`.
        on_loss: called in a thread, with the index of the process that has died, after a grace of 5 s.
    """

    def __init__(self, index: int, count: int, host: str, store: Any, on_loss: Callable[[int], None]) -> None:
        self.lost = threading.Event()
        """Set as soon as a process is known to have died."""
        self._index, self._on_loss = index, on_loss
        self._left = False
        self._peers: dict[int, socket.socket] = {}
        self._last_heard = dict.fromkeys(range(1, count) if index == 0 else [0], time.monotonic())
        self._sockets = contextlib.ExitStack()
        self._selector = self._sockets.enter_context(selectors.DefaultSelector())
        if index == 0:
            both = socket.has_dualstack_ipv6()  # versions of IP, as JAX listens too
            family = socket.AF_INET6 if both else socket.AF_INET
            listener = self._sockets.enter_context(socket.create_server(("", 0), family=family, dualstack_ipv6=both))
            self._token = secrets.token_hex()
            store.key_value_set(_KEY, f"{listener.getsockname()[1]} {self._token}")
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
        else:
            port, self._token = store.blocking_key_value_get(_KEY, int(1000 * _SILENCE_SECONDS)).split()
            self._add(0, socket.create_connection((host, int(port)), _SILENCE_SECONDS))
            self._peers[0].sendall(f"{self._token} {index}\n".encode())
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def say_goodbye(self) -> None:
        """Tells the others that this process ends as it should."""
        self._send("goodbye")

    def leave(self) -> None:
        """Ends the connections without a goodbye, so that the others end too; this process ends by itself."""
        self._left = True
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        beat = 0.0
        with self._sockets:
            while not self._left and not self.lost.is_set():
                for key, _ in self._selector.select(_BEAT_SECONDS / 4):
                    key.data(key.fileobj)
                now = time.monotonic()
                if now - beat >= _BEAT_SECONDS:
                    beat = now
                    self._send("alive")
                for index, heard in list(self._last_heard.items()):
                    if now - heard > _SILENCE_SECONDS:
                        self._lose(index)

    def _accept(self, listener: socket.socket) -> None:
        """Takes a connection that begins with the token: the port is open to everybody in the network."""
        connection = listener.accept()[0]
        connection.settimeout(_BEAT_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            token, index = connection.makefile("rb", buffering=0).readline(200).decode().split()
            if secrets.compare_digest(token, self._token) and int(index) in self._last_heard:
                self._add(int(index), connection)
                return
        connection.close()

    def _add(self, index: int, connection: socket.socket) -> None:
        self._peers[index] = self._sockets.enter_context(connection)
        pending = b""

        def hear(_: Any) -> None:
            nonlocal pending
            try:
                received = connection.recv(4096)
            except OSError:
                received = b""
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                self._understand(index, *line.decode().split())
            if not received:
                self._selector.unregister(connection)
                if index in self._last_heard:
                    self._lose(index)

        self._selector.register(connection, selectors.EVENT_READ, hear)

    def _understand(self, index: int, message: str, *lost: str) -> None:
        match message:
            case "alive" if index in self._last_heard:
                self._last_heard[index] = time.monotonic()
            case "goodbye":
                del self._last_heard[index]
            case "lost":
                self._lose(int(lost[0]))

    def _send(self, message: str) -> None:
        for peer in list(self._peers.values()):
            with contextlib.suppress(OSError):  # of one that has gone
                peer.sendall(f"{message}\n".encode())

    def _lose(self, index: int) -> None:
        if self._left or self.lost.is_set():
            return
        self.lost.set()
        self._send(f"lost {index}")
        time.sleep(_GRACE_SECONDS)
        if not self._left:
            self._on_loss(index)


@contextlib.contextmanager
def relay(address: str) -> Iterator[str]:
    """The address of a socket that is connected on to `address`, and stays open when that connection ends.

    JAX aborts a process as soon as its connection to process 0 ends, before anything else can be said or done.
    """

    def send(inner: socket.socket, outer: socket.socket) -> None:
        with inner:
            while data := inner.recv(_CHUNK):
                with contextlib.suppress(OSError):  # of a connection that has ended
                    outer.sendall(data)
            with contextlib.suppress(OSError):
                outer.shutdown(socket.SHUT_RDWR)

    def receive(inner: socket.socket, outer: socket.socket) -> None:
        with outer, contextlib.suppress(OSError):
            while data := outer.recv(_CHUNK):
                inner.sendall(data)

    def serve() -> None:
        while True:
            try:
                inner = listener.accept()[0]
            except OSError:  # closed: JAX has joined
                return
            try:
                outer = socket.create_connection((host.strip("[]"), int(port)))
            except OSError:  # process 0 does not listen yet: JAX tries again
                inner.close()
                continue
            for function in (send, receive):
                threading.Thread(target=function, args=(inner, outer), daemon=True).start()

    host, _, port = address.rpartition(":")
    # The path of a socket may have 107 characters, too few for many a folder of temporary files.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/jax")
        listener.listen()
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"unix:{folder}/jax"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
