"""pcnn-serve as a process of its own, and clients that do not behave."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cli
import numpy as np
import pytest
from PIL import Image
from served import Server

from pcnn import Recognizer
from pcnn.embeddings import Head

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


def test_a_body_that_never_comes_does_not_hold_up_the_stop(astronaut: Path) -> None:
    server = Server("--seconds", "3600")
    with server.connect() as stuck, server.connect() as silent, server.connect() as idle:
        stuck.sendall(_post(1000) + b"\x89PNG")
        silent.sendall(b"POST /predict HTTP/1.1\r\nhost: x")
        idle.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
        answer = stuck.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in answer
        assert b"the server is stopping" in answer


def test_a_client_that_does_not_read_holds_up_the_stop_for_a_while_only() -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1600, 2400, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG", compress_level=1)
    body = stream.getvalue()  # the answer is as large, far more than fits into buffers
    assert len(body) > 10_000_000
    server = Server("--seconds", "20")
    with server.connect() as client:
        request = _post(len(body)).replace(b"/predict", b"/predict/annotated") + body
        client.sendall(request)
        assert client.recv(16).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
    server.wait_for(lambda line: line["event"].endswith("graceful shutdown exceeded"), 1)


def test_an_interrupt_that_is_sent_twice_ends_it(astronaut: Path) -> None:
    server = Server("--seconds", "3600")
    with server.connect() as client:
        client.sendall(_post(1000) + b"\x89PNG")
        server.ask("GET", "/healthz")  # after it the request above is at hand
        server.send(signal.SIGINT)
        server.wait_for(lambda line: line["event"].startswith("Waiting for connections"), 20)
        assert server.stop(signal.SIGINT) in (0, 130)
    # After a single one it waits for the answer, and then says that it has come to its end.
    assert not any(line["event"].startswith("Application shutdown") for line in server.log)


def test_own_labels_and_movements_are_those_of_pcnn_predict(
    astronaut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recognizer = Recognizer("small")
    (vector,) = recognizer.embed(astronaut)
    matrix = np.stack([vector, -vector])
    head = Head(("glad", "calm"), matrix, np.zeros(2, np.float32), recognizer.weights_sha256)
    head.save(tmp_path / "mine.safetensors")
    options = ["--head", str(tmp_path / "mine.safetensors"), "--movements"]
    assert cli.predict(["--weights", "small", *options, str(astronaut), "--format", "json"]) == 0
    ((expected,),) = (each["faces"] for each in json.loads(capsys.readouterr().out))
    server = Server(*options)
    try:
        status, (found,) = server.ask("POST", "/predict", astronaut.read_bytes())
    finally:
        assert server.stop() == 0
    assert status == 200
    (face,) = found["faces"]
    assert face["label"] == "glad"
    assert face["scores"] == pytest.approx(expected["scores"], abs=1e-4)
    assert face["movements"] == pytest.approx(expected["movements"], abs=1e-3)
    assert face["pose"] == pytest.approx(expected["pose"], abs=0.1)
    assert len(face["mesh"]) == len(expected["mesh"]) == 478


def test_it_starts_again_after_it_was_killed_amid_a_request(astronaut: Path) -> None:
    server = Server()
    body = astronaut.read_bytes()
    with server.connect() as client:
        client.sendall(_post(len(body)) + body)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    again = Server("--port", str(server.port))
    assert again.ask("POST", "/predict", body)[0] == 200
    assert again.stop(signal.SIGINT) in (0, 130)


def test_an_address_that_is_taken_or_not_its_own_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.serve(["--weights", "small", "--port", str(port)]) == 2
    told = f"pcnn-serve: --host 127.0.0.1 --port {port}: address already in use: choose another\n"
    assert capsys.readouterr().err == told
    assert cli.serve(["--weights", "small", "--host", "a..b", "--no-token"]) == 2
    assert "--host a..b --port 8000: " in capsys.readouterr().err

    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "cannot assign requested address")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    elsewhere = ["--host", "192.0.2.1", "--no-token", "--port", "0"]
    assert cli.serve(["--weights", "small", *elsewhere]) == 2
    assert "--host 192.0.2.1 --port 0: cannot assign" in capsys.readouterr().err


def test_others_are_let_in_by_a_token_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.serve(["--host", "0.0.0.0"]) == 2
    assert "give --token TOKEN" in capsys.readouterr().err


def test_a_folder_that_is_no_page_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.serve(["--weights", "small", "--page", str(tmp_path)]) == 2
    assert "has no index.html" in capsys.readouterr().err
