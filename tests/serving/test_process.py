"""pcnn-serve as a process of its own, and clients that do not behave."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cli
import pytest

pytestmark = pytest.mark.serve
ROOT = Path(__file__).parent.parent.parent
START = "import sys; from pcnn.commands.serve import main; sys.exit(main(sys.argv[1:]))"


class Server:
    """A running pcnn-serve. log: its lines so far."""

    def __init__(self, *options: str) -> None:
        self.log: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "--port", "0", "--weights", "small", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        threading.Thread(target=self._read, daemon=True).start()
        line = self.wait_for(lambda line: "running on" in line["event"], 120)
        self.port = int(re.findall(r":(\d+) ", line["event"])[0])

    def _read(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            self.log.append(json.loads(line))

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        """The first line of the log that is wanted."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in list(self.log):
                if wanted(line):
                    return line
            time.sleep(0.05)
        raise AssertionError(f"never logged; {self.log}")

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Exit status. It has half a minute."""
        self._process.send_signal(how)
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()
            if self._process.stderr:
                self._process.stderr.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server("--body", "1", "--seconds", "3")
    yield running
    assert running.stop() == 0


def _post(length: int) -> bytes:
    return f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


def test_it_answers(server: Server, astronaut: Path) -> None:
    status, (found,) = server.ask("POST", "/predict", astronaut.read_bytes())
    assert status == 200
    assert [face["label"] for face in found["faces"]] == ["happiness"]


def test_an_oversized_body_is_refused_before_it_is_sent(server: Server) -> None:
    with server.connect() as client:
        client.sendall(_post(10_000_000_000))
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_an_endless_body_is_refused_while_it_is_sent(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 50_000_000:
                client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
        # The connection ends after little more than what is allowed and what lies in buffers.
        assert sent < 40_000_000
    server.wait_for(lambda line: line.get("status") == 413 and line["received"] > 1_000_000, 10)


def test_a_slow_client_is_cut_off(server: Server) -> None:
    with server.connect() as client:
        client.sendall(_post(1000) + b"\x89PNG")
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_goes_away_leaves_the_server_well(server: Server, astronaut: Path) -> None:
    body = astronaut.read_bytes()
    for part in (len(body) // 2, len(body)):  # in the middle of its body; before the answer
        client = server.connect()
        client.sendall(_post(len(body)) + body[:part])
        client.close()
    status, _ = server.ask("POST", "/predict", body)
    assert status == 200
    assert server.ask("GET", "/healthz")[1]["status"] == "ok"


def test_garbage_is_refused(server: Server) -> None:
    with server.connect() as client:
        client.sendall(b"\x16\x03\x01\x02 not http at all\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_request_at_hand_is_answered_when_it_is_stopped(astronaut: Path) -> None:
    server = Server()
    body = astronaut.read_bytes()
    with server.connect() as client:
        client.sendall(_post(len(body)) + body[:-1])
        time.sleep(0.5)
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.stop()))
        stopping.start()
        server.wait_for(lambda line: line["event"] == "Shutting down", 20)
        client.sendall(body[-1:])
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    stopping.join()
    assert stopped == [0]


def test_it_starts_again_after_it_was_killed_amid_a_request(astronaut: Path) -> None:
    server = Server()
    body = astronaut.read_bytes()
    with server.connect() as client:
        client.sendall(_post(len(body)) + body)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    again = Server("--port", str(server.port))
    assert again.ask("POST", "/predict", body)[0] == 200
    assert again.stop(signal.SIGINT) in (0, 130)


def test_others_are_let_in_by_a_token_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.serve(["--host", "0.0.0.0"]) == 2
    assert "give --token TOKEN" in capsys.readouterr().err


def test_a_folder_that_is_no_page_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.serve(["--weights", "small", "--page", str(tmp_path)]) == 2
    assert "has no index.html" in capsys.readouterr().err
