"""Films with labels and numbers of one's own, and with movements."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cli
import numpy as np
import pytest
from films import PEOPLE, av, face, scene, write_film
from PIL import Image

from pcnn import Recognizer
from pcnn.embeddings.heads import Head
from pcnn.embeddings.values import ValueHead

COUNT = 10


@pytest.fixture(scope="module")
def people(shared_data: Path) -> list[np.ndarray]:
    return [face(shared_data / "lfw" / "lfw_faces.tar", name, 120) for name in PEOPLE[::2]]


@pytest.fixture(scope="module")
def folder(people: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film of two people, and a head that tells them apart."""
    found = tmp_path_factory.mktemp("films")
    frames = [
        scene([(people[0], 90, 100), (people[1], 250 - step, 100)], size=(340, 200))
        for step in range(COUNT)
    ]
    write_film(found / "people.mp4", frames)
    recognizer = Recognizer("small", device="cpu")
    vectors = np.concatenate([recognizer.embed(frame) for frame in frames[::4]])
    boxes = [recognizer.predict(frame).faces for frame in frames[::4]]
    labels = ["he" if each.box[0] < 150 else "she" for faces in boxes for each in faces]
    sha256 = recognizer.weights_sha256
    head = Head.fit(vectors, labels, weights=sha256, method="means")
    head.save(found / "mine.safetensors")
    bias = np.array([0.25, -0.5], np.float32)
    matrix = np.zeros((2, vectors.shape[1]), np.float32)
    ValueHead(("valence", "arousal"), matrix, bias, sha256).save(found / "numbers.safetensors")
    return found


def rows_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_film_with_labels_of_ones_own(here: Path) -> None:
    words = [str(here / "people.mp4"), "--head", str(here / "mine.safetensors")]
    made = ["--annotate", "a", "--timeline", "t", "--subtitles", "s"]
    assert cli.predict([*words, *made, "--format", "csv", "--output", "f.csv"]) == 0
    rows = rows_of("f.csv")
    assert len(rows) == 2 * COUNT
    assert list(rows[0])[-4:] == ["he", "she", "raw_he", "raw_she"]
    names = {row["track"]: row["label"] for row in rows}
    assert set(names.values()) == {"he", "she"}
    for row in rows:
        assert row["label"] == names[row["track"]]
        assert (float(row["x1"]) < 150) == (row["label"] == "he")
        assert float(row["he"]) + float(row["she"]) == pytest.approx(1, abs=2e-6)
        assert float(row["confidence"]) == max(float(row["he"]), float(row["she"]))
    with av.open("a/people.annotated.mp4") as drawn:
        assert sum(1 for _ in drawn.decode(video=0)) == COUNT
    with Image.open("t/people.timeline.png") as picture:
        assert picture.size[0] == 1600
    assert "she" in Path("t/people.timeline.html").read_text()
    cues = Path("s/people.expressions.srt").read_text()
    assert "1: " in cues and ": he" in cues and ": she" in cues


def test_a_film_with_numbers_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(here / "people.mp4"), "--head", str(here / "numbers.safetensors")]
    assert cli.predict([*words, "--format", "jsonl", "--every", "0.4"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 4
    assert [(row["valence"], row["arousal"]) for row in rows] == [(0.25, -0.5)] * 4
    assert {"happiness", "raw_happiness"} < set(rows[0])


def test_a_film_with_movements_and_its_resumption(here: Path) -> None:
    words = [str(here / "people.mp4"), "--weights", "small", "--movements", "--format", "csv"]
    assert cli.predict([*words, "--annotate", "a", "--output", "f.csv"]) == 0
    whole = Path("f.csv").read_bytes()
    rows = rows_of("f.csv")
    assert len(rows) == 2 * COUNT
    assert {"yaw", "pitch", "roll", "jawOpen"} < set(rows[0])
    assert all(0 <= float(row["jawOpen"]) <= 1 for row in rows)
    assert all(abs(float(row["yaw"])) < 60 for row in rows)
    Path("f.csv").write_bytes(whole[: len(whole) // 2])
    assert cli.predict([*words, "--output", "f.csv", "--resume"]) == 0
    assert Path("f.csv").read_bytes() == whole
    with av.open("a/people.annotated.mp4") as drawn, av.open(str(here / "people.mp4")) as plain:
        (one, *_), (two, *_) = list(drawn.decode(video=0)), list(plain.decode(video=0))
    first, second = (each.to_ndarray(format="rgb24").astype(int) for each in (one, two))
    assert 0.02 < (np.abs(first - second).max(2) > 60).mean() < 0.5
