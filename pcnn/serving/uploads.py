"""The pictures of a request: read within limits, from a raw body or a form."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import PureWindowsPath
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pcnn.errors import InputError, counted, without_names
from pcnn.images.files import as_unicode
from pcnn.images.loading import stored_size
from pcnn.serving.limits import Limits, Refusal

# How Recognizer.predict calls pictures without a name.
_NUMBER = re.compile(r"^images\[\d+\]")
_MOST_DIGITS = 18
# Once the server stops, for a body that is on its way.
STOP_SECONDS = 5.0


class Upload(NamedTuple):
    """One picture as it came. source: its file's name, without folders; None in a raw body."""

    source: str | None
    content: bytes


class Arrivals:
    """The bodies that are on their way to one server.

    limits: those of the server, its bytes and seconds.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._stopping = False

    async def body(self, request: Request) -> bytes:
        """The body of a request.

        Raises Refusal: 400 it ends early, 408 it comes too slowly, 413 too many bytes, 503 the
        server stops while it comes.
        """
        limits = self._limits
        announced = request.headers.get("content-length", "").lstrip("0")
        # Python refuses to read numbers of thousands of digits.
        digits = len(announced) if announced.isascii() and announced.isdecimal() else 0
        if digits and (digits > _MOST_DIGITS or int(announced) > limits.body_bytes):
            raise _too_large(limits.body_bytes)
        task = asyncio.ensure_future(_received(request, limits.body_bytes))
        self._tasks.add(task)
        try:
            return await asyncio.wait_for(task, limits.seconds)
        except asyncio.TimeoutError as error:
            reason = f"the body took more than {limits.seconds:g} s to arrive"
            raise Refusal(408, reason) from error
        except asyncio.CancelledError as error:
            if not self._stopping:
                raise
            raise Refusal(503, "the server is stopping", closes=True) from error
        except ClientDisconnect as error:
            raise Refusal(400, "the client disconnected before the end of its body") from error
        finally:
            self._tasks.discard(task)

    def stop(self) -> None:
        """Refuse the bodies that have not arrived STOP_SECONDS from now."""
        self._stopping = True
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._cancel)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


class _InMemory(MultiPartParser):
    """Keeps files in memory, where the body already is: nothing of them reaches a disk."""

    spool_max_size = 1 << 62


async def read_uploads(request: Request, arrivals: Arrivals, limits: Limits) -> list[Upload]:
    """The pictures of a request: each file of a multipart form, or the body itself.

    Raises Refusal: as Arrivals.body; 413 too many pictures or pixels, 422 no picture, or a form
    that cannot be read.
    """
    body = await arrivals.body(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _form(request, body, limits)
    else:
        uploads = [Upload(None, body)] if body else []
    if not uploads:
        raise Refusal(422, "no picture: send one as the body, or files in a multipart form")
    for upload in uploads:
        _check_pixels(upload, limits)
    return uploads


async def _received(request: Request, most: int) -> bytes:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > most:
            raise _too_large(most)
    return bytes(received)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"more than {most:,} bytes: send fewer or smaller pictures")


async def _form(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    parser = _InMemory(
        request.headers, _once(body), max_files=limits.pictures, max_fields=limits.pictures
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many" in error.message:
            most = counted(limits.pictures, "picture")
            raise Refusal(413, f"more than {most} in a request: send several") from error
        raise Refusal(422, f"the form cannot be read ({error.message})") from error
    except Exception as error:  # its parser raises what it likes: a missing boundary is a KeyError
        raise Refusal(422, "the form cannot be read: send multipart/form-data") from error
    try:
        return [
            Upload(_source(file), await file.read())
            for _, file in form.multi_items()
            if isinstance(file, UploadFile)
        ]
    finally:
        await form.close()


def _source(file: UploadFile) -> str | None:
    """A file's name without folders. A charset may make it text that no answer can have."""
    return as_unicode(PureWindowsPath(file.filename or "").name) or None


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _check_pixels(upload: Upload, limits: Limits) -> None:
    """Raise Refusal if a picture's header has more pixels than allowed."""
    size = stored_size(upload.content)
    if size and size[0] * size[1] > limits.pixels:
        name = upload.source or "the picture"
        raise Refusal(
            413,
            f"{name}: {size[0]} × {size[1]} pixels are more than the {limits.pixels:,} allowed",
        )


def in_request(error: InputError, source: str | None) -> str:
    """A picture's error for its sender.

    It has the picture's own name, not its number in a batch, and no names of Python.
    """
    name = source or "the picture"
    text, numbers = _NUMBER.subn(lambda _: name, without_names(str(error)))
    return text if numbers else f"{name}: {text}"
