"""pcnn-serve as a process of its own, and clients that do not behave."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cli
import pytest
from served import Server

pytestmark = pytest.mark.serve


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
