"""A server and its clients, over sockets of this machine."""

import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from ddf_jax.errors import UserError
from ddf_jax.serving.limits import Limits
from ddf_jax.serving.server import serve
from tests.ddf_jax.serving.brightness import ask, brightness, png, predictor, while_served


def label(body: bytes) -> tuple[str, str]:
    """The image's name and its class."""
    [row] = json.loads(body)
    assert row["predictions"][0]["probability"] == 1.0
    return row["image"], row["predictions"][0]["class"]


def form(files: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--line\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + b"--line--\r\n", {"Content-Type": "multipart/form-data; boundary=line"}


def test_each_of_many_clients_gets_the_answer_to_its_own_image():
    def clients(address):
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda level: ask(address, "POST", "/predict", png(level)), range(64)))
        assert [label(answer.body) for answer in answers] == [("image", str(level)) for level in range(64)]
        body, headers = form({"image": png(9)})
        assert label(ask(address, "POST", "/predict", body, headers).body) == ("image.png", "9")

    assert while_served(predictor(), clients) == {"answered": 65, "refused": 0, "failed": 0}


def test_what_cannot_be_answered_is_refused_with_a_reason():
    limits = Limits(max_bytes=4000, max_pixels=1000)

    def clients(address):
        def refused(status, reason, *request):
            answer = ask(address, "POST", "/predict", *request)
            assert answer.status == status
            assert reason in json.loads(answer.body)["error"]

        refused(413, "at most 4000 bytes, got 5000", bytes(5000))
        refused(413, "at most 4000 bytes, got more", iter([bytes(3000)] * 3))  # in chunks
        refused(413, "40×40 pixels", png(1, 40))
        refused(400, "no known image format", b"not an image")
        refused(400, "truncated", png(1)[:50])
        refused(400, "empty file", b"")
        refused(400, "lacks image", *form({"picture": png(1)}))
        refused(400, "form cannot be read", b"--other", {"Content-Type": "multipart/form-data; boundary=line"})
        assert ask(address, "GET", "/health", headers={"Host": "page.example"}).status == 400
        assert ask(address, "GET", "/predict").status == 405
        assert label(ask(address, "POST", "/predict", png(3)).body) == ("image", "3")
        health = json.loads(ask(address, "GET", "/health").body)
        assert health == {
            "status": "ok", "name": "brightness", "step": 7, "active": 0, "answered": 1, "refused": 8, "failed": 0
        }  # fmt: skip

    while_served(predictor(), clients, limits)


def test_slow_clients_are_sent_away_and_do_not_delay_others():
    def clients(address):
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        with socket.create_connection(address) as headers, socket.create_connection(address) as body:
            headers.sendall(head)
            body.sendall(head + b"Content-Length: 1000\r\n\r\nstart")
            assert label(ask(address, "POST", "/predict", png(5)).body) == ("image", "5")
            assert headers.recv(100) == b""
            assert body.recv(100).startswith(b"HTTP/1.1 408 ")

    assert while_served(predictor(), clients, Limits(read_seconds=1.0))["refused"] == 1


def test_on_every_loopback_address_other_names_are_refused():
    def clients(address):
        for name, status in {"127.0.0.2": 200, "localhost:80": 200, "page.example": 400}.items():
            assert ask(address, "GET", "/health", headers={"Host": name}).status == status

    while_served(predictor(), clients, host="127.0.0.2")


def test_requests_beyond_the_queue_and_beyond_the_time_are_refused():
    waiting = threading.Event()

    def slowly(weights, arrays):
        def wait(values):
            waiting.wait(10)
            return values

        outputs = brightness(weights, arrays)
        kind = jax.ShapeDtypeStruct(outputs["probabilities"].shape, outputs["probabilities"].dtype)
        return {"probabilities": jax.pure_callback(wait, kind, outputs["probabilities"])}

    def clients(address):
        with ThreadPoolExecutor(3) as threads:
            pending = [threads.submit(ask, address, "POST", "/predict", png(level)) for level in range(2)]
            while json.loads(ask(address, "GET", "/health").body)["active"] < 2:
                time.sleep(0.01)
            full = ask(address, "POST", "/predict", png(2))
            late = [request.result() for request in pending]
        assert (full.status, full.headers["retry-after"]) == (503, "1")
        assert "2 requests are being answered already" in json.loads(full.body)["error"]
        assert {answer.status for answer in late} == {503}
        assert "no answer within 1.5 s" in json.loads(late[0].body)["error"]
        waiting.set()
        assert label(ask(address, "POST", "/predict", png(3)).body) == ("image", "3")

    while_served(predictor(slowly), clients, Limits(max_requests=2, max_batch=1, answer_seconds=1.5))


def test_a_program_that_fails_costs_its_own_requests_alone(caplog):
    def failing(weights, arrays):
        if arrays["image"].shape[0] == 2:
            raise RuntimeError("broken")
        return brightness(weights, arrays)

    served = predictor(failing)
    served.warm_up = lambda max_batch: None  # pyright: ignore[reportAttributeAccessIssue]

    def clients(address):
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(lambda level: ask(address, "POST", "/predict", png(level)), range(2)))
        assert [answer.status for answer in both] == [500, 500]
        assert label(ask(address, "POST", "/predict", png(4)).body) == ("image", "4")

    assert while_served(served, clients, Limits(batch_seconds=0.3, max_batch=2))["failed"] == 2
    assert "RuntimeError: broken" in caplog.text


def test_a_signal_lets_what_is_being_answered_finish():
    answers = []

    def clients(address):
        threads = [threading.Thread(target=lambda: answers.append(ask(address, "POST", "/predict", png(6))))]
        threads[0].start()
        while not json.loads(ask(address, "GET", "/health").body)["active"]:
            time.sleep(0.01)

    # It waits half a second for others to share its batch with.
    counts = while_served(predictor(), clients, Limits(batch_seconds=0.5), signal.SIGINT)
    assert counts["answered"] == 1
    while not answers:
        time.sleep(0.01)
    assert label(answers[0].body) == ("image", "6")


def test_the_page_holds_everything_it_needs():
    def clients(address):
        page = ask(address, "GET", "/")
        assert page.status == 200
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        text = page.body.decode()
        assert '"name": "brightness"' in text
        assert not re.search(r"""(src|href)=["']|https?:|url\(|@import""", text)

    while_served(predictor(), clients)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="Address already in use"):
        serve(predictor(), port=taken.getsockname()[1], limits=Limits(max_batch=1))


def test_limits_are_checked():
    with pytest.raises(UserError, match=r"`read_seconds` must be at least 0.001, got 0"):
        Limits(read_seconds=0.0)
    with pytest.raises(UserError, match=r"`max_bytes` must be at least 1, got 0"):
        Limits(max_bytes=0)
