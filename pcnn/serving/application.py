"""The application: what each address answers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

from pcnn.errors import InputError
from pcnn.results.values import Prediction
from pcnn.serving import descriptions
from pcnn.serving.batching import Batcher, Predictor, Results
from pcnn.serving.descriptions import Health, PictureAnswer, PictureError, refusals
from pcnn.serving.limits import Limits, Refusal
from pcnn.serving.metrics import CONTENT_TYPE, Metrics
from pcnn.serving.pages import add_page
from pcnn.serving.records import Records
from pcnn.serving.uploads import Arrivals, Upload, in_request, read_uploads
from pcnn.version import __version__

_OF_PICTURES = (400, 401, 408, 413, 422, 429, 500, 503)


class ServedRecognizer(Predictor, Protocol):
    """The attributes of a Recognizer that a server uses."""

    batch_size: int

    @property
    def movements(self) -> tuple[str, ...]:
        """As Recognizer.movements."""

    @property
    def weights_sha256(self) -> str:
        """As Recognizer.weights_sha256."""


def create_app(
    recognizer: ServedRecognizer,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    page: Path | None = None,
) -> FastAPI:
    """Create the server as an ASGI application.

    recognizer: a Recognizer. One thread calls it, with the pictures of waiting requests together.
    token: the required token of `Authorization: Bearer …`; None allows all clients. The page,
        /healthz and /openapi.json need no token.
    page: the folder of the page; None for no page.
    The application's lifespan starts and stops the thread. Before its start, pictures are refused
    with status 503. `app.state.stop()`, called in the server's loop before it waits for open
    requests, has it refuse bodies that do not arrive soon (see serving.server).
    """
    service = _Service(recognizer, limits or Limits(), token)
    app = FastAPI(
        title="pcnn",
        version=__version__,
        description=descriptions.DESCRIPTION,
        lifespan=service.lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.stop = service.arrivals.stop
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_middleware(Records, metrics=service.metrics)
    _add_routes(app, service, locked=token is not None)
    if page is not None:
        add_page(app, page)
    return app


class _Service:
    """One recognizer behind a batcher, with limits, token and counts."""

    def __init__(self, recognizer: ServedRecognizer, limits: Limits, token: str | None) -> None:
        self.recognizer, self.limits, self._token = recognizer, limits, token
        self.metrics, self.arrivals = Metrics(), Arrivals(limits)
        self.batcher: Batcher | None = None
        self.at_hand = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start the batcher; at the end let it answer what waits."""
        self.batcher = Batcher(self.recognizer, most=4 * self.recognizer.batch_size)
        try:
            yield
        finally:
            await run_in_threadpool(self.batcher.close)

    def check_token(self, request: Request) -> None:
        """Raise Refusal unless the request brings the token that is asked for."""
        if self._token is None:
            return
        given = request.headers.get("authorization", "").encode("latin-1")  # bytes as they came
        if not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            raise Refusal(401, "the token is missing or wrong: send Authorization: Bearer TOKEN")

    @contextlib.contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """A place among the requests at hand, until its answer is made.

        Raises Refusal: a wrong token, or no place is free.
        """
        self.check_token(request)
        if self.at_hand >= self.limits.waiting:
            most = self.limits.waiting
            raise Refusal(429, f"{most} requests are at hand already: try again", retry=1)
        self.at_hand += 1
        try:
            yield
        finally:
            self.at_hand -= 1

    async def predict(
        self, request: Request, *, alone: bool = False
    ) -> tuple[list[Upload], Results]:
        """The pictures of a request, and what was found in each.

        alone: True takes a single picture.
        Raises Refusal: whatever is wrong, with the request or with the server.
        """
        started = asyncio.get_running_loop().time()
        uploads = await read_uploads(request, self.arrivals, self.limits)
        if alone and len(uploads) != 1:
            raise Refusal(422, f"one picture at a time can be drawn on, got {len(uploads)}")
        taken = asyncio.get_running_loop().time() - started
        results = await self._results(uploads, max(0.01, self.limits.seconds - taken))
        found = [result for result in results if isinstance(result, Prediction)]
        faces = sum(len(prediction.faces) for prediction in found)
        self.metrics.add_pictures(len(found), faces)
        request.scope["pcnn"] = {"pictures": len(uploads), "faces": faces}
        return uploads, results

    async def _results(self, uploads: list[Upload], seconds: float) -> Results:
        if self.batcher is None:
            raise Refusal(503, "the server is starting: try again", retry=1)
        try:
            future = self.batcher.submit([upload.content for upload in uploads])
        except InputError as error:
            raise Refusal(503, "the server is stopping") from error
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except asyncio.TimeoutError as error:
            reason = f"no answer within {self.limits.seconds:g} s: try again"
            raise Refusal(503, reason, retry=5) from error


def _add_routes(app: FastAPI, service: _Service, *, locked: bool) -> None:
    # This only tells OpenAPI of the token: `check_token` asks for it.
    told = [Depends(HTTPBearer(auto_error=False, scheme_name="token"))] if locked else []

    @app.post(
        "/predict",
        summary="The faces of one or many pictures, with their expressions",
        response_model=list[PictureAnswer | PictureError],
        responses={
            200: {"content": {"application/json": {"example": descriptions.EXAMPLE}}},
            **refusals(*_OF_PICTURES),
        },
        openapi_extra=descriptions.REQUEST_BODY,
        dependencies=told,
    )
    async def predict(request: Request) -> Response:
        """One entry for each picture, in their order, as `pcnn-predict --format json` writes them.

        Of several pictures one that cannot be read has an `error` in its place; where none can
        be read, the status is 422.
        """
        with service.place(request):
            return JSONResponse(_answers(*await service.predict(request)))

    @app.post(
        "/predict/annotated",
        summary="A picture with its faces drawn on it",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}, **refusals(*_OF_PICTURES)},
        openapi_extra=descriptions.REQUEST_BODY,
        dependencies=told,
    )
    async def annotated(request: Request) -> Response:
        """A PNG; takes a single picture."""
        with service.place(request):
            uploads, results = await service.predict(request, alone=True)
            _answers(uploads, results)
            moving = bool(service.recognizer.movements)
            png = await run_in_threadpool(_drawn, uploads[0], results[0], moving=moving)
        return Response(png, media_type="image/png")

    @app.get("/healthz", summary="Whether the server answers", responses=refusals(503))
    async def healthz() -> Health:
        """200 as long as pictures are taken, 503 before and after."""
        if service.batcher is None:
            raise Refusal(503, "the server is starting: try again", retry=1)
        sha256 = service.recognizer.weights_sha256
        return Health(status="ok", version=__version__, weights_sha256=sha256)

    @app.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_class=PlainTextResponse,
        responses=refusals(401),
        dependencies=told,
    )
    async def metrics(request: Request) -> Response:
        """Prometheus' text format."""
        service.check_token(request)
        batcher = service.batcher
        counts = (batcher.batches, batcher.waiting) if batcher else (0, 0)
        text = service.metrics.text(batches=counts[0], waiting=counts[1], requests=service.at_hand)
        return Response(text, media_type=CONTENT_TYPE)


def _answers(uploads: list[Upload], results: Results) -> list[dict[str, Any]]:
    """An entry for each picture. Raises Refusal: none could be read."""
    answers: list[dict[str, Any]] = []
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, Prediction):
            answers.append({**result.to_dict(), "source": upload.source})
        else:
            answers.append({"source": upload.source, "error": in_request(result, upload.source)})
    if all("error" in answer for answer in answers):
        raise Refusal(422, "; ".join(answer["error"] for answer in answers))
    return answers


def _drawn(upload: Upload, result: Prediction | InputError, *, moving: bool) -> bytes:
    assert isinstance(result, Prediction)
    stream = io.BytesIO()
    result.draw(upload.content, mesh=moving, movements=moving).save(stream, "PNG")
    return stream.getvalue()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse({"error": error.reason}, error.status, error.headers)


async def _no_such(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = str(error.detail)
    if error.status_code == 404:
        reason = "no such address"
    elif error.status_code == 405:
        allowed = Headers(error.headers).get("allow", "").split(", ")
        reason = f"this address takes {', '.join(sorted(allowed))}"  # they come in any order
    return JSONResponse({"error": reason}, error.status_code, error.headers)


def is_local(host: str) -> bool:
    """Whether a host name or address is a loopback one, which other machines cannot reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
