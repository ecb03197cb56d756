"""Records of requests: one JSON line each, without any content of pictures."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pcnn.serving.metrics import Metrics

LOGGER = logging.getLogger("pcnn.serving")
# Addresses that are counted under their own names; the page's files are one.
_PATHS = ("/predict", "/predict/annotated", "/healthz", "/metrics", "/openapi.json")


class Records:
    """Middleware that counts and logs each request, and answers unexpected errors with 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, answer = time.perf_counter(), {"status": 0, "bytes": 0}
        received = 0

        async def take() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def give(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
            answer["bytes"] += len(message.get("body", b""))
            await send(message)

        failure = None
        try:
            await self._app(scope, take, give)
        except Exception as error:
            failure = error
            if not answer["status"]:
                refusal = JSONResponse({"error": "an error of the server's own"}, 500)
                await refusal(scope, take, give)
        seconds = time.perf_counter() - started
        path = scope["path"] if scope["path"] in _PATHS else "other"
        self._metrics.add_request(path, answer["status"], seconds)
        LOGGER.log(
            logging.INFO if failure is None else logging.ERROR,
            "request",
            extra={
                "pcnn": {
                    "method": scope["method"],
                    "path": path,
                    "status": answer["status"],
                    "seconds": round(seconds, 4),
                    "received": received,
                    "sent": answer["bytes"],
                    **scope.get("pcnn", {}),
                }
            },
            exc_info=failure,
        )


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """As logging.Formatter.format."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "pcnn", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr() -> None:
    """Write this package's records and those of the web server to stderr, as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn", "python_multipart"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
