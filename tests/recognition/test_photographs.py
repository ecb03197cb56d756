"""Faces of photographs with their quality, and what is asked of it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cli
import pytest

from pcnn import Recognizer
from pcnn.errors import InputError
from pcnn.recognition import photographs
from pcnn.results.values import UNCERTAIN


def test_a_label_is_uncertain_below_the_quality_asked_for(astronaut: Path) -> None:
    sure = Recognizer("small", device="cpu").predict(astronaut).faces[0]
    assert sure.quality is not None and 0.5 < sure.quality <= 1
    for least, label in ((sure.quality - 1e-3, sure.label), (sure.quality + 1e-3, UNCERTAIN)):
        found = Recognizer("small", device="cpu", min_quality=least).predict(astronaut).faces[0]
        assert found.label == label
        assert found.quality == pytest.approx(sure.quality, abs=1e-6)
        assert found.confidence == pytest.approx(sure.confidence, abs=1e-6)
        assert found.scores == pytest.approx(dict(sure.scores), abs=1e-6)


def test_the_pose_is_used_where_it_is_read(
    astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def qualities(pictures: object, found: object, poses: list[object]) -> list[float]:
        given.append(list(poses))
        return [0.25] * len(poses)

    monkeypatch.setattr(photographs, "face_qualities", qualities)
    for movements in (False, True):
        recognizer = Recognizer("small", device="cpu", movements=movements)
        (face,) = recognizer.predict(astronaut).faces
        assert face.quality == 0.25
        assert given.pop() == [face.pose] and (face.pose is not None) == movements


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="Recognizer: min_quality must lie in 0…1, got -1"):
        Recognizer("small", device="cpu", min_quality=-1)


def test_the_command_writes_it_and_says_uncertain(
    astronaut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(astronaut), "--weights", "small", "--device", "cpu", "--min-quality", "1"]
    assert cli.predict([*words, "--format", "jsonl"]) == 0
    (face,) = json.loads(capsys.readouterr().out)["faces"]
    assert face["label"] == UNCERTAIN and 0.5 < face["quality"] < 1
    assert cli.predict([*words, "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert float(row["quality"]) == face["quality"] and row["label"] == UNCERTAIN
