"""The HTTP application: images in, the JSON of the commands out, a page to try a picture, and the server's health."""

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ddf_jax.data.decode import CorruptImageError, TooManyPixelsError
from ddf_jax.errors import UserError
from ddf_jax.serving.batching import Batcher
from ddf_jax.serving.limits import Limits
from ddf_jax.serving.predictor import Predictor, shape_of
from ddf_jax.serving.services import Example

_log = logging.getLogger(__name__)

_READERS = 2  # threads that decode images and write answers
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)


class Upload(NamedTuple):
    """The files of a request by name, and the name of its image."""

    files: dict[str, bytes]
    name: str


class Application:
    """Answers requests with a predictor.

    Args:
        predictor: whose programs are compiled at the first request of their shape.
        limits: of requests.
    """

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        service = predictor.service
        self.max_pixels = min(limits.max_pixels or service.max_pixels, service.data.max_pixels)
        self.service = dataclasses.replace(service, data=dataclasses.replace(service.data, max_pixels=self.max_pixels))
        self.predictor, self.limits = predictor, limits
        self.active = 0
        self.counts: dict[str, int] = {"answered": 0, "refused": 0, "failed": 0}
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._device = ThreadPoolExecutor(1, "device")

    def asgi(self) -> Starlette:
        """The application for an ASGI server."""
        routes = [
            Route("/", self.page),
            Route("/health", self.health),
            Route("/predict", self.predict, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        del app
        self._batcher = Batcher(self.predictor, self._most, self.limits.batch_seconds, self._device)
        task = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            task.cancel()
            for threads in (self._readers, self._device):
                threads.shutdown(wait=False, cancel_futures=True)

    def _most(self, shape: Any) -> int:
        """Examples of a shape in a batch, a power of two: together they have no more pixels than one may have."""
        pixels = max(of[0] * of[1] for _, of, _ in shape if len(of) > 1)
        most = min(self.limits.max_batch, self.predictor.batch_size or self.limits.max_batch)
        return 1 << max(1, min(most, self.max_pixels // pixels)).bit_length() - 1

    async def page(self, request: Request) -> Response:
        """A page to try a picture by hand."""
        del request
        facts = {
            "name": self.predictor.name,
            "step": self.predictor.step,
            "files": dict(self.service.files),
            "max_bytes": self.limits.max_bytes,
        }
        text = resources.files("ddf_jax.serving").joinpath("page.html").read_text()
        embedded = json.dumps(facts).replace("<", "\\u003c")
        return HTMLResponse(text.replace("__FACTS__", embedded), headers={"content-security-policy": _POLICY})

    async def health(self, request: Request) -> Response:
        """What is served, and how much has been asked."""
        del request
        facts = {"status": "ok", "name": self.predictor.name, "step": self.predictor.step, "active": self.active}
        return JSONResponse(facts | self.counts)

    async def predict(self, request: Request) -> Response:
        """The document for the image of a request, or `{"error": …}`."""
        if self.active >= self.limits.max_requests:
            return self._refused(503, f"{self.active} requests are being answered already. Try again.")
        self.active += 1
        read_seconds, answer_seconds = self.limits.read_seconds, self.limits.answer_seconds
        try:
            async with _within(read_seconds, 408, f"The request must be sent within {read_seconds:g} s."):
                upload = await self._received(request)
            async with _within(answer_seconds, 503, f"There was no answer within {answer_seconds:g} s. Try again."):
                text = await self._answer(upload, picture=request.query_params.get("picture") == "1")
            self.counts["answered"] += 1
            return Response(text, media_type="application/json")
        except RefusedError as error:
            return self._refused(error.status, str(error))
        except TooManyPixelsError as error:
            return self._refused(413, f"The image is too large: {error}.")
        except (CorruptImageError, UserError) as error:
            return self._refused(400, f"The files cannot be used: {error}")
        except ClientDisconnect:
            return self._refused(400, "The client has gone.")
        except Exception:
            _log.exception("a request failed")
            self.counts["failed"] += 1
            return JSONResponse({"error": "The server failed; its log states why."}, 500)
        finally:
            self.active -= 1

    async def _received(self, request: Request) -> Upload:
        body, needed = await _body(request, self.limits.max_bytes), list(self.service.files)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            if len(needed) > 1:
                raise RefusedError(415, f"The request must be multipart/form-data with the files {', '.join(needed)}.")
            return Upload({needed[0]: body}, needed[0])
        return await _form(request, body, self.service.files)

    async def _answer(self, upload: Upload, *, picture: bool) -> bytes:
        loop = asyncio.get_running_loop()

        def read() -> Example:
            return self.service.read(upload.files, picture=picture)

        example = await loop.run_in_executor(self._readers, read)
        shape = shape_of(example.arrays)
        self.predictor.check(shape)
        outputs = await self._batcher.submit(example, shape)

        def write() -> bytes:
            document = self.service.answer(upload.name, outputs, example)
            return json.dumps(document, allow_nan=False).encode()

        return await loop.run_in_executor(self._readers, write)

    def _refused(self, status: int, reason: str) -> Response:
        self.counts["refused"] += 1
        return JSONResponse({"error": reason}, status, {"retry-after": "1"} if status == 503 else None)


class RefusedError(Exception):
    """A request that is not answered, with the status of the response; the message is for the user."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@contextlib.asynccontextmanager
async def _within(seconds: float, status: int, reason: str) -> AsyncIterator[None]:
    """Refuses the request where the time is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RefusedError(status, reason) from None


async def _body(request: Request, most: int) -> bytes:
    """A request's body, of which no more than the limit is ever kept."""
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > most:
        raise RefusedError(413, f"The request must have at most {most} bytes, got {stated}.")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise RefusedError(413, f"The request must have at most {most} bytes, got more.")
        chunks.append(chunk)
    return b"".join(chunks)


async def _form(request: Request, body: bytes, files: Mapping[str, str]) -> Upload:
    """The files of a form."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    found: dict[str, bytes] = {}
    name = ""
    try:
        async with Request(request.scope, receive).form(max_files=len(files), max_fields=8) as form:
            for field in files:
                file = form.get(field)
                if isinstance(file, UploadFile):
                    found[field] = await file.read()
                    name = name or file.filename or field
    except (HTTPException, MultiPartException) as error:
        raise RefusedError(400, f"The form cannot be read: {getattr(error, 'detail', error)}") from error
    if missing := files.keys() - found.keys():
        raise RefusedError(400, f"The form must have the files {', '.join(files)}, but lacks {', '.join(missing)}.")
    return Upload(found, name)
