"""What a notebook shows of results."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcnn.results.values import Face, Prediction

SCORES = {"neutral": 0.25, "happiness": 0.625, "anger": 0.125}
LANDMARKS = np.array([[20, 20], [40, 20], [30, 30], [22, 40], [38, 40]], np.float32)


@pytest.fixture
def prediction(tmp_path: Path) -> Prediction:
    path = tmp_path / "a<b>.png"
    Image.new("RGB", (1500, 300), (0, 0, 90)).save(path)
    face = Face("happiness", 0.625, SCORES, {}, (10.4, 10, 50.6, 52), 0.875, LANDMARKS)
    return Prediction((face,), str(path), 1500, 300)


def test_html_has_the_annotated_picture_and_the_table(prediction: Prediction) -> None:
    html = prediction._repr_html_()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert shown.size == (1024, 205)  # shrunk, so that a notebook's file stays small
    assert (np.asarray(shown) != (0, 0, 90)).any(), "the face is drawn on it"
    assert "a&lt;b&gt;.png, 1500 × 300" in html and "<b>" not in html
    cells = re.findall(r"<td>(.*?)</td>", html)
    assert cells == ["1", "happiness", "62.5%", "neutral 25%, anger 12%", "10 10 51 52"]


def test_png(prediction: Prediction) -> None:
    content = prediction._repr_png_()
    assert content is not None and content.startswith(b"\x89PNG")


def test_without_the_file_there_is_the_table_alone(prediction: Prediction) -> None:
    for source in (None, "gone.jpg"):
        gone = dataclasses.replace(prediction, source=source)
        assert gone._repr_png_() is None
        assert "<img" not in gone._repr_html_() and "<td>happiness</td>" in gone._repr_html_()


def test_without_faces_the_page_says_so(prediction: Prediction) -> None:
    html = dataclasses.replace(prediction, faces=())._repr_html_()
    assert "<img" in html and "no face found" in html and "<table" not in html
