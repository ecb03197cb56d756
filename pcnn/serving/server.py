"""The server's process part: uvicorn, with a stop that waits for nothing but answers."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A uvicorn server of an application that `create_app` made.

    uvicorn waits for every request that has begun, however slowly its body comes. This one tells
    the application first that it stops, so that bodies on their way have a moment, not all of the
    time that a request may take.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn.Server.shutdown."""
        self._app.state.stop()
        await super().shutdown(sockets)
