"""What Python shows of the package's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pcnn import Detection, Explanation, Face, Prediction, Recognizer
from pcnn.datasets import FaceSet
from pcnn.embeddings import Embeddings, Head, ValueHead
from pcnn.faces.detector import Detector
from pcnn.representation import Brief, brief
from pcnn.results.frames import Frame, TrackedFace
from pcnn.results.movements import FaceMotion, Pose
from pcnn.weights import load_expression
from pcnn.weights.landmarks import load_landmarks
from pcnn.weights.movements import load_movements

SCORES = {"calm": 0.987654321, "glad": 0.012345679}
PLACE = np.array([[3, 3], [7, 3], [5, 5], [4, 7], [6, 7]], np.float32)
MOTION = FaceMotion({f"m{number}": 0.5 for number in range(51)}, Pose(1.0, 2.0, -3.25), PLACE)
BOX = (1.25, 2.0, 300.123456, 4.0)
FACE = Face("calm", 0.987654321, SCORES, {}, BOX, 0.75, PLACE, motion=MOTION)
TRACKED = TrackedFace("calm", 0.5, SCORES, {}, BOX, 0.75, PLACE, track=3, raw=SCORES)
VECTORS = np.ones((200, 256), np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Holder(Brief):
    value: Any
    hidden: int = field(default=1, repr=False)
    empty: Mapping[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        (12_345_678, "12345678"),
        (0.123456, "0.1235"),
        (np.float32(0.123456), "0.1235"),
        (float("nan"), "nan"),
        ("two\nlines", r"'two\nlines'"),
        ("x" * 500, f"'{'x' * 120}…'"),
        (Path("a/b"), repr(str(Path("a/b")))),
        (np.ones((2, 3), np.int16), "<2 × 3 int16>"),
        (torch.ones(4), "<4 float32>"),
        (torch.tensor(1.0), "<one float32>"),
        ((), "()"),
        (("a",), "('a',)"),
        ([1, 2.5], "(1, 2.5)"),
        (tuple(range(11)), "<11 int>"),
        (((1, 2), (3, 4)), "<2 tuple>"),
        ((FACE,) * 7, "<7 Face: calm, calm, calm, calm, calm, …>"),
        ({"a": 0.123456}, "{'a': 0.1235}"),
        ({"a": {"b": 1}}, "<1 entries>"),
        (torch.nn.Linear(2, 3), "<Linear>"),
        (Holder(1), "Holder(value=1)"),
    ],
)
def test_values(value: Any, shown: str) -> None:
    assert brief(value) == shown
    assert repr(Holder(value)) == f"Holder(value={shown})"


def test_a_prediction_and_its_face() -> None:
    assert repr(Prediction((FACE, FACE), "a.jpg", 640, 480)) == (
        "Prediction(faces=<2 Face: calm, calm>, source='a.jpg', width=640, height=480)"
    )
    assert repr(FACE) == (
        "Face(label='calm', confidence=0.9877, scores={'calm': 0.9877, 'glad': 0.01235}, "
        "box=(1.25, 2, 300.1, 4), detection_score=0.75, quality=None)"
    )


@pytest.mark.parametrize(
    "shown",
    [
        Detection(BOX, 0.5, PLACE),
        TRACKED,
        Frame(0.5, 7, (TRACKED,) * 100, "film.mp4", 640, 480, np.zeros((480, 640, 3), np.uint8)),
        Explanation(
            FACE, "calm", {"mouth": SCORES}, np.ones((96, 96), np.float32), {}, np.ones((9, 9, 3))
        ),
        MOTION,
        Head(("no", "yes"), VECTORS[:2], VECTORS[0, :2], "0" * 64),
        ValueHead(("valence",), VECTORS[:1], VECTORS[0, :1], "0" * 64),
        Embeddings(VECTORS, ("a",) * 200, np.zeros(200, np.int64), np.ones((200, 4)), "0" * 64),
        FaceSet(torch.zeros(200, 48, 48, dtype=torch.uint8), torch.ones(200, 8), ("a",) * 200),
        load_expression("small"),
        load_movements("movements"),
        load_landmarks("landmarks"),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_results_and_containers_are_one_short_line(shown: object) -> None:
    text = repr(shown)
    assert text.startswith(f"{type(shown).__name__}(")
    assert "\n" not in text and len(text) < 420


def test_recognizers_and_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer, detector = Recognizer("small", device="cpu"), Detector.load("mobilenet")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("expensive")

    monkeypatch.setattr("pcnn.recognition.recognizer.sha256", refuse)
    monkeypatch.setattr("pcnn.recognition.recognizer.describe", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    found = "retinaface-mobilenet0.25, mobilenet; landmarks by landmarks"
    classes = ", ".join(recognizer.classes)
    assert repr(recognizer) == (
        f"<Recognizer: pcnn-small on cpu; detector {found}; labels {classes}>"
    )
    assert repr(detector) == f"<Detector: {found}; on cpu>"
