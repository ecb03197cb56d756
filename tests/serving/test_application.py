"""What the server answers, within its own process; and once with the real recognizer."""

from __future__ import annotations

import io
import json
import logging
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcnn import Recognizer
from pcnn.errors import InputError
from pcnn.images.loading import load_image
from pcnn.results.movements import FaceMotion, Pose
from pcnn.results.values import Face, Prediction

pytestmark = pytest.mark.serve
pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient  # noqa: E402

from pcnn.serving.application import create_app, is_local  # noqa: E402
from pcnn.serving.limits import Limits, Refusal  # noqa: E402
from pcnn.serving.records import JsonLines  # noqa: E402

SCORES = {"neutral": 0.25, "happiness": 0.75}
OF_PYTHON = r"[A-Z]\w*\.\w|[a-z]_[a-z]|images\[|in Python|=['\"\d]|Error\b"
MESH = np.random.default_rng(0).uniform(0, 9, (478, 2)).astype(np.float32)


class FakeRecognizer:
    """Finds one face in each picture; waits for `go` before it answers."""

    batch_size = 2
    weights_sha256 = "0" * 64
    movements: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[int] = []
        self.fails = False

    def predict(self, images: list[Any], *, on_error: str) -> list[Prediction | InputError]:
        assert on_error == "return"
        self.batches.append(len(images))
        assert self.go.wait(20)
        if self.fails:
            raise KeyError("secret")
        found: list[Prediction | InputError] = []
        for number, image in enumerate(images):
            try:
                height, width = load_image(image, name=f"images[{number}]").shape[:2]
            except InputError as error:
                found.append(error)
                continue
            landmarks = np.array([[3, 3], [7, 3], [5, 5], [4, 8], [6, 8]], np.float32)
            motion = FaceMotion({"jawOpen": 0.9}, Pose(5, 0, 0), MESH) if self.movements else None
            box = (1.0, 1.0, 9.0, 9.0)
            face = Face("happiness", 0.75, SCORES, {}, box, 0.9, landmarks, motion=motion)
            found.append(Prediction((face,), None, width, height))
        return found


def picture(width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 40)).save(stream, kind)
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG that unpacks to width × height black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.fixture
def recognizer() -> FakeRecognizer:
    return FakeRecognizer()


@pytest.fixture
def client(recognizer: FakeRecognizer) -> Iterator[TestClient]:
    limits = Limits(body_bytes=200_000, pixels=1_000_000, pictures=3, seconds=2, waiting=2)
    with TestClient(create_app(recognizer, limits=limits)) as ready:
        ready.event_hooks["response"] = [check_error]
        yield ready


def check_error(answer: Any) -> None:
    """Fail if an answer is an error that speaks of Python."""
    if answer.status_code >= 400:
        answer.read()
        assert not re.search(OF_PYTHON, answer.json()["error"]), answer.json()


def test_a_raw_picture(client: TestClient) -> None:
    answer = client.post("/predict", content=picture())
    assert answer.status_code == 200
    (found,) = answer.json()
    assert (found["source"], found["width"], found["height"]) == (None, 40, 30)
    assert found["faces"][0]["scores"] == SCORES


def test_many_pictures_keep_names_and_order(client: TestClient) -> None:
    files = [
        ("pictures", ("a.png", picture(10))),
        ("other", ("C:\\people\\b.jpg", picture(20, kind="JPEG"))),
    ]
    found = client.post("/predict", files=files).json()
    assert [(each["source"], each["width"]) for each in found] == [("a.png", 10), ("b.jpg", 20)]


def test_a_bad_picture_among_good_ones_is_named_in_its_place(client: TestClient) -> None:
    files = [("a", ("a.png", picture())), ("b", ("b.png", picture()[:60]))]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 200
    good, bad = answer.json()
    assert good["faces"]
    assert bad == {"source": "b.png", "error": "b.png: the PNG data are damaged or cut short"}


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"hello, I am text", "image/jpeg", 422, "text, not a picture"),
        (b"", "image/png", 422, "no picture: send one as the body"),
        (b"%PDF-1.7 ", "application/pdf", 422, "PDF"),
        (picture()[:60], "image/png", 422, "damaged or cut short"),
        (b"x" * 200_001, "image/png", 413, "more than 200,000 bytes"),
        (bomb(20_000, 20_000), "image/png", 413, "20000 × 20000 pixels are more than"),
        (b"junk", "multipart/form-data", 422, "form cannot be read"),
        (b"junk", "multipart/form-data; boundary=x", 422, "form cannot be read"),
        (b"a=1&b=2", "application/x-www-form-urlencoded", 422, "not a picture"),
    ],
)
def test_what_is_refused(
    client: TestClient, content: bytes, kind: str, status: int, reason: str
) -> None:
    for path in ("/predict", "/predict/annotated"):
        answer = client.post(path, content=content, headers={"content-type": kind})
        assert answer.status_code == status, answer.text
        assert reason in answer.json()["error"]
        assert list(answer.json()) == ["error"]


def of_floats(*values: float) -> bytes:
    """A TIFF with one row of floats."""
    stream = io.BytesIO()
    Image.fromarray(np.array([values], np.float32)).save(stream, "TIFF")
    return stream.getvalue()


NOT_READ = {
    "text, not a picture": b"hello, I am text",
    "HEIC pictures must be converted to JPEG": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "a video, not a picture: pcnn-predict reads it": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2avc1mp41",
    "the PNG data are damaged or cut short": picture()[:60],
    "20000 × 20000 pixels are more than the 200,000,000 allowed": bomb(20_000, 20_000),
    "must hold finite values, got NaN or infinity in 1 of 2": of_floats(0.5, np.nan),
    "of float32 must lie in 0…255, got -3…700: convert the picture to mode L": of_floats(-3, 700),
}


@pytest.mark.parametrize("name", ["a.png", "load_image: b.png", "images[0]", "back\\g<0>slash"])
def test_errors_of_pictures_speak_of_files_not_of_python(
    recognizer: FakeRecognizer, name: str
) -> None:
    shown = name.rpartition("\\")[2]
    with TestClient(create_app(recognizer, limits=Limits(pixels=500_000_000))) as client:
        for reason, content in NOT_READ.items():
            joint = " " if reason.startswith(("must", "of ")) else ": "
            alone = client.post("/predict", content=content)
            assert (alone.status_code, alone.json()) == (
                422,
                {"error": f"the picture{joint}{reason}"},
            )
            expected = f"{shown}{joint}{reason}"
            files = [("p", ("good.png", picture())), ("p", (name, content))]
            among = client.post("/predict", files=files)
            assert among.json()[1] == {"source": shown, "error": expected}
            drawn = client.post("/predict/annotated", files=files[1:])
            assert (drawn.status_code, drawn.json()) == (422, {"error": expected})


def test_a_body_without_a_length_is_cut_off_too(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 10_000

    assert client.post("/predict", content=parts()).status_code == 413


def test_too_many_pictures(client: TestClient) -> None:
    files = [("p", (f"{number}.png", picture())) for number in range(4)]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 413
    assert "more than 3 pictures" in answer.json()["error"]


def test_annotated_is_a_picture(client: TestClient, recognizer: FakeRecognizer) -> None:
    answer = client.post("/predict/annotated", content=picture(300, 300))
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as drawn:
        assert drawn.size == (300, 300)
    files = [("p", ("a.png", picture())), ("p", ("b.png", picture()))]
    before = list(recognizer.batches)
    assert client.post("/predict/annotated", files=files).status_code == 422
    assert recognizer.batches == before  # nothing is computed in vain


@pytest.mark.parametrize(("charset", "name"), [("utf-7", b"+2AA-"), ("unicode_escape", b"\\ud800")])
def test_a_name_that_is_no_text_is_escaped(client: TestClient, charset: str, name: bytes) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="p"; filename="%s.png"\r\n\r\n' % name
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = head + picture() + b"\r\n--x--\r\n"
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()[0]["source"]) == (200, "\\ud800.png")


@pytest.mark.parametrize(("length", "status"), [("9" * 5000, 413), ("0" * 5000 + "9", 200)])
def test_an_announced_length_of_many_digits(client: TestClient, length: str, status: int) -> None:
    answer = client.post("/predict", content=picture(), headers={"content-length": length})
    assert answer.status_code == status


def test_movements_are_answered_and_drawn(client: TestClient, recognizer: FakeRecognizer) -> None:
    plain = client.post("/predict/annotated", content=picture(300, 300)).content
    recognizer.movements = ("jawOpen",)
    ((face,),) = (each["faces"] for each in client.post("/predict", content=picture()).json())
    assert face["movements"] == {"jawOpen": 0.9}
    assert (face["pose"]["yaw"], len(face["mesh"])) == (5, 478)
    assert client.post("/predict/annotated", content=picture(300, 300)).content != plain


def test_a_full_server_and_a_late_answer(client: TestClient, recognizer: FakeRecognizer) -> None:
    recognizer.go.clear()
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/predict", content=picture())))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    while "pcnn_requests 2" not in client.get("/metrics").text:
        pass
    refused = client.post("/predict", content=picture())
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert "2 requests are at hand" in refused.json()["error"]
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [503, 503]
    assert "no answer within 2 s" in answers[0].json()["error"]
    recognizer.go.set()
    assert client.post("/predict", content=picture()).status_code == 200


def test_an_error_of_its_own_shows_nothing(
    client: TestClient, recognizer: FakeRecognizer, caplog: pytest.LogCaptureFixture
) -> None:
    recognizer.fails = True
    with caplog.at_level(logging.INFO, "pcnn.serving"):
        answer = client.post("/predict", content=picture())
    assert answer.status_code == 500
    assert answer.json() == {"error": "an error of the server's own"}
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert "KeyError" in line["trace"]  # for whoever runs it
    recognizer.fails = False
    assert client.post("/predict", content=picture()).status_code == 200


def test_the_token(recognizer: FakeRecognizer) -> None:
    with TestClient(create_app(recognizer, token="schlüssel")) as client:
        for given in (
            {},
            {"authorization": "Bearer other"},
            {"authorization": "schlüssel".encode()},
        ):
            answer = client.post("/predict", content=picture(), headers=given)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics").status_code == 401
        assert client.get("/healthz").status_code == 200
        right = {"authorization": "Bearer schlüssel".encode()}
        assert client.post("/predict", content=picture(), headers=right).status_code == 200


def test_logs_tell_nothing_of_pictures(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pcnn.serving"):
        client.post("/predict", files={"p": ("anna.png", picture())})
    line = json.loads(JsonLines().format(caplog.records[-1]))
    assert line["path"] == "/predict"
    assert (line["status"], line["pictures"], line["faces"]) == (200, 1, 1)
    assert line["received"] > 0
    assert "anna" not in json.dumps(line)


def test_metrics_are_prometheus_text(client: TestClient) -> None:
    client.post("/predict", content=picture())
    client.get("/nowhere")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    pattern = r'(# (HELP|TYPE) pcnn_\w+ .+|pcnn_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.]+)'
    assert all(re.fullmatch(pattern, line) for line in answer.text.splitlines())
    assert 'pcnn_requests_total{path="/predict",status="200"} 1' in answer.text
    assert 'pcnn_requests_total{path="other",status="404"} 1' in answer.text
    assert "pcnn_faces_total 1" in answer.text
    assert 'pcnn_request_seconds_bucket{le="+Inf"} 2' in answer.text


def test_openapi_has_examples(client: TestClient) -> None:
    told = client.get("/openapi.json").json()
    assert "securitySchemes" not in told["components"]
    assert set(told["paths"]) == {"/predict", "/predict/annotated", "/healthz", "/metrics"}
    for path in ("/predict", "/predict/annotated"):
        told_of = told["paths"][path]["post"]
        assert "multipart/form-data" in told_of["requestBody"]["content"]
        for status in ("413", "422", "429", "503"):
            assert told_of["responses"][status]["content"]["application/json"]["example"]["error"]
    answers = told["paths"]["/predict"]["post"]["responses"]["200"]["content"]
    assert answers["application/json"]["example"][0]["faces"][0]["label"] == "happiness"


def test_a_page_does_not_hide_the_methods_of_other_addresses(
    recognizer: FakeRecognizer, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<p>here")
    with TestClient(create_app(recognizer, page=tmp_path, token="x")) as client:
        answer = client.get("/predict")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.json() == {"error": "this address takes POST"}
        assert client.put("/predict").json() == answer.json()
        assert client.post("/healthz").json() == {"error": "this address takes GET"}
        assert client.post("/").json() == {"error": "this address takes GET, HEAD"}
        assert client.get("/predictions").json() == {"error": "no such address"}
        page = client.get("/")
        assert page.text == "<p>here"
        assert "connect-src 'self'" in page.headers["content-security-policy"]
        again = client.get("/", headers={"if-none-match": page.headers["etag"]})
        assert again.status_code == 304
        told = client.get("/openapi.json").json()
        assert told["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
        assert told["paths"]["/predict"]["post"]["security"] == [{"token": []}]


def test_without_a_page_wrong_addresses_and_methods_are_told_alike(client: TestClient) -> None:
    for path in ("/", "/predictions", "/docs"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "no such address"})
    answer = client.get("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"error": "this address takes POST"}


def test_whose_addresses_are_local() -> None:
    assert all(map(is_local, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.0.2.1", "example.org")))


def test_limits_must_be_above_0() -> None:
    with pytest.raises(InputError, match="pixels must be above 0, got 0"):
        Limits(pixels=0)
    with pytest.raises(InputError, match="seconds must be above 0, got 'a'"):
        Limits(seconds="a")  # type: ignore[arg-type]
    assert Refusal(401, "no").headers == {"www-authenticate": "Bearer", "connection": "close"}


def test_the_real_recognizer_answers_as_pcnn_predict(astronaut: Path) -> None:
    recognizer = Recognizer("small")
    with TestClient(create_app(recognizer)) as client:
        answer = client.post("/predict", files={"p": ("astronaut.png", astronaut.read_bytes())})
    expected = recognizer.predict(astronaut).to_dict()
    assert answer.json() == [{**expected, "source": "astronaut.png"}]


def test_a_picture_that_is_drawn_keeps_its_place(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(*_: Any, **__: Any) -> bytes:
        begun.release()
        assert go.wait(20)
        return b""

    monkeypatch.setattr("pcnn.serving.application._drawn", slow)

    def ask() -> None:
        client.post("/predict/annotated", content=picture())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert begun.acquire(timeout=20)
    refused = client.post("/predict/annotated", content=picture())
    go.set()
    for thread in threads:
        thread.join()
    assert refused.status_code == 429
    assert client.post("/predict/annotated", content=picture()).status_code == 200
