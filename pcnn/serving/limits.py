"""Limits of a server, and its refusals."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pcnn.errors import InputError, is_number


@dataclass(frozen=True)
class Limits:
    """The limits of one server.

    body_bytes: of a request, all its pictures together. pixels: of one picture, as its file says
        before it is decoded. pictures: of a request.
    seconds: how long a request may take, from its first byte to its answer.
    waiting: requests at hand at a time, being received, waiting or computed.
    Raises InputError: a limit that is not above 0.
    """

    body_bytes: int = 32_000_000
    pixels: int = 50_000_000
    pictures: int = 32
    seconds: float = 30.0
    waiting: int = 64

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not is_number(value) or not value > 0:
                raise InputError(f"Limits: {field.name} must be above 0, got {value!r}")


# Refused while the body may still be on its way: else the server would go on receiving it.
_UNREAD = (400, 401, 408, 413, 429)


class Refusal(Exception):  # noqa: N818 - most are no errors of the server's
    """An answer other than 200: an HTTP status and a reason for people.

    retry: seconds after which to try again, or None.
    closes: True ends the connection also for a status that leaves it open elsewhere.
    """

    def __init__(
        self, status: int, reason: str, *, retry: int | None = None, closes: bool = False
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry = status, reason, retry
        self._closes = closes or status in _UNREAD

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        found = {} if self.retry is None else {"retry-after": str(self.retry)}
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self._closes:
            found["connection"] = "close"
        return found
