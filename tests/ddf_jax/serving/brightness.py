"""A predictor without a network, and a server of it in this process: the class of an image is its brightness."""

import io
import os
import signal
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from ddf_jax.data.config import DataConfig
from ddf_jax.data.info import DataInfo
from ddf_jax.serving.limits import Limits
from ddf_jax.serving.predictor import Predictor
from ddf_jax.serving.server import serve
from ddf_jax.serving.services.classification import ClassificationService
from ddf_jax.training.tasks.classification import Classification

INFO = DataInfo(256, tuple(map(str, range(256))), channels=1, train_size=1, eval_size=1, image_size=8)


def brightness(weights: Any, arrays: Any) -> Any:
    """All of the probability is that of the mean of the pixels."""
    mean = arrays["image"].astype(jnp.float32).mean((1, 2, 3))
    return {"probabilities": (mean[:, None].astype(jnp.int32) == jnp.arange(256)[None]).astype(jnp.float32)}


def predictor(program: Callable[[Any, Any], Any] = brightness) -> Predictor:
    service = ClassificationService(Classification(), INFO, DataConfig(image_size=8))
    return Predictor("brightness", 7, service, program, {})


def png(level: int, side: int = 8) -> bytes:
    """An image of one brightness."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), level, np.uint8)).save(file, "png")
    return file.getvalue()


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


def ask(
    address: tuple[str, int], method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request on a connection of its own."""
    connection = HTTPConnection(*address, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.read(), {name.lower(): value for name, value in response.getheaders()})
    finally:
        connection.close()


def while_served(
    served: Predictor,
    clients: Callable[[tuple[str, int]], None],
    limits: Limits | None = None,
    number: int = signal.SIGTERM,
    host: str = "127.0.0.1",
) -> dict[str, int]:
    """Runs `clients` in a thread while this one serves; the signal comes when they are done.

    Returns:
        What `serve` returns.
    """
    failures: list[BaseException] = []

    def run(url: str) -> None:
        try:
            host, port = url.removeprefix("http://").split(":")
            clients((host, int(port)))
        except BaseException as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), number)

    threads: list[threading.Thread] = []

    def started(url: str) -> None:
        threads.append(threading.Thread(target=run, args=(url,)))
        threads[0].start()

    counts = serve(served, host=host, port=0, limits=limits, started=started)
    threads[0].join()
    if failures:
        raise failures[0]
    return counts
