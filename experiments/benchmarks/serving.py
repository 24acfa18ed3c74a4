"""Loads `ddf serve` with parallel clients, most of them good, and checks every answer and the server's memory.

    python -m experiments.benchmarks.serving runs/digits --out serving.csv

Of ten clients six send good images, and one each bodies that are too large, images of too many pixels, requests that
never end, and files that are no images. A good client compares each answer with that of `ddf_jax.predict`. Clients and
server share this machine's cores.
"""

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddf_jax.data.decode import encode_png
from ddf_jax.files import write_atomically
from ddf_jax.training.run import load_run, predict
from experiments.benchmarks.rows import Row, row_environment, to_csv

_IMAGES = 32  # different good ones
_TOLERANCE = 1e-5  # of a probability
_MAX_BYTES, _MAX_PIXELS, _READ_SECONDS = 1 << 20, 1 << 20, 1.0  # of the server
_SIDE = 4000  # of an image of too many pixels

Address = tuple[str, int]


class Reply(NamedTuple):
    """What came of a request.

    Args:
        status: of the response, 0 where the connection was lost.
        wrong: whether an answer was not the expected one, or a request was answered that must be refused.
        seconds: until it came.
    """

    status: int
    wrong: bool
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="the folder of a classifier's run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a .csv file to write")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(argv)
    if options.clients < 10 or options.clients % 10:
        parser.error(f"--clients must be a multiple of 10, got {options.clients}.")
    rows = measure(options.run, options.clients, options.seconds)
    if options.out is not None:
        write_atomically(options.out, to_csv(rows))
    print(to_csv(rows), end="")
    return int(any(row["wrong"] for row in rows))


def measure(folder: Path, clients: int, seconds: float) -> list[Row]:
    """A row for each kind of client."""
    kinds = _kinds(folder)
    names = (["good"] * 6 + [kind for kind in kinds if kind != "good"]) * (clients // 10)
    with _Server(folder) as server, ThreadPoolExecutor(len(names)) as threads:
        for kind in kinds.values():  # or the first ones would count as growth of memory
            kind(server.address)
        start, stop = server.resident_mb(), time.monotonic() + seconds
        pending = [threads.submit(_repeat, kinds[name], server.address, stop) for name in names]
        memory = []
        while time.monotonic() < stop:
            memory.append(server.resident_mb())
            time.sleep(0.1)
        replies = [request.result() for request in pending]
    middle = len(memory) // 2
    common = {
        "resident_mb_start": start,
        "resident_mb_peak_first_half": max(memory[:middle]),
        "resident_mb_peak_second_half": max(memory[middle:]),
    } | row_environment("jax", "cpu")
    rows = []
    for kind in kinds:
        found = [reply for name, some in zip(names, replies, strict=True) if name == kind for reply in some]
        rows.append(_row(folder, kind, names.count(kind), seconds, found) | common)
    return rows


def _row(folder: Path, kind: str, clients: int, seconds: float, replies: Sequence[Reply]) -> Row:
    times = sorted(reply.seconds for reply in replies)
    statuses = Counter(reply.status for reply in replies)
    return {
        "run": folder.name,
        "kind": kind,
        "clients": clients,
        "requests": len(replies),
        "per_second": round(len(replies) / seconds, 1),
        "statuses": " ".join(f"{status}:{count}" for status, count in sorted(statuses.items())),
        "wrong": sum(reply.wrong for reply in replies),
        "median_ms": round(1e3 * statistics.median(times), 1),
        "p99_ms": round(1e3 * times[int(0.99 * len(times))], 1),
    }


class _Server:
    """`ddf serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        limits = {"port": 0, "max-bytes": _MAX_BYTES, "max-pixels": _MAX_PIXELS, "read-seconds": _READ_SECONDS}
        words = [f"--{name}={value}" for name, value in limits.items()]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ddf_jax", "serve", str(folder), *words], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        line = self._output.readline()
        host, _, port = line.partition("http://")[2].partition(";")[0].partition(":")
        self.address: Address = (host, int(port))

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        output = self._output.read()
        status = self._process.wait(120)
        if status or "failed 0" not in output:
            raise RuntimeError(f"The server must end with status 0 and without failures, got {status}: {output}")

    def resident_mb(self) -> float:
        """Memory of the process."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
        return round(int(kilobytes) / 1024, 1)


def _repeat(kind: Callable[[Address], Reply], address: Address, stop: float) -> list[Reply]:
    replies = []
    while time.monotonic() < stop:
        replies.append(kind(address))
    return replies


def _kinds(folder: Path) -> dict[str, Callable[[Address], Reply]]:
    """By kind of client, one request of it."""
    run, rng, local = load_run(folder), np.random.default_rng(0), threading.local()
    side = 2 * run.info.image_size
    images = rng.integers(0, 256, (_IMAGES, side, side, run.info.channels), np.uint8)
    expected = predict(run, images)
    files = [encode_png(image[..., 0] if run.info.channels == 1 else image).getvalue() for image in images]
    huge = encode_png(np.zeros((_SIDE, _SIDE), np.uint8)).getvalue()
    broken = [files[0][: len(files[0]) // 2], rng.bytes(1000), b""]

    def good(address: Address) -> Reply:
        choice = rng.integers(_IMAGES)

        def right(answer: Any) -> bool:
            found = {row["class"]: row["probability"] for row in answer[0]["predictions"]}
            places = [run.info.class_names.index(name) for name in found]
            return bool(np.allclose(expected[choice][places], [*found.values()], rtol=0, atol=_TOLERANCE))

        return _reply(local, address, files[choice], right, {200, 503})

    def refused(body: Callable[[], bytes], statuses: set[int]) -> Callable[[Address], Reply]:
        return lambda address: _reply(local, address, body(), lambda answer: True, statuses)

    return {
        "good": good,
        "too_many_bytes": refused(lambda: bytes(2 * _MAX_BYTES), {413, 503}),
        "too_many_pixels": refused(lambda: huge, {413, 503}),
        "slow": _slow,
        "broken": refused(lambda: broken[rng.integers(len(broken))], {400, 503}),
    }


def _reply(
    local: threading.local, address: Address, body: bytes, right: Callable[[Any], bool], statuses: set[int]
) -> Reply:
    """One request on the connection of this thread."""
    start = time.monotonic()
    try:
        if not hasattr(local, "connection"):
            local.connection = HTTPConnection(*address, timeout=60)
        local.connection.request("POST", "/predict", body)
        response = local.connection.getresponse()
        answer = json.loads(response.read())
        wrong = response.status not in statuses or (response.status == 200 and not right(answer))
        return Reply(response.status, wrong, time.monotonic() - start)
    except (OSError, HTTPException):
        local.connection.close()
        return Reply(0, True, time.monotonic() - start)


def _slow(address: Address) -> Reply:
    """A request of a byte every tenth of a second."""
    start = time.monotonic()
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        try:
            while time.monotonic() - start < 10 * _READ_SECONDS:
                connection.sendall(b"x")
                connection.settimeout(0.1)
                try:
                    status = int(connection.recv(1000).split()[1])
                    return Reply(status, status not in (408, 503), time.monotonic() - start)
                except TimeoutError:
                    continue
        except (OSError, IndexError):
            return Reply(0, True, time.monotonic() - start)
    return Reply(0, True, time.monotonic() - start)  # it was never sent away


if __name__ == "__main__":
    sys.exit(main())
