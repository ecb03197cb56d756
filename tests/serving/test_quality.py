"""The page measures the quality of faces as Python does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from vectors import NODE, answers, image_of

from pcnn.faces.quality import face_qualities
from pcnn.results.values import Detection

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")

UPRIGHT = [[202.0, 102.0], [243.0, 101.0], [222.0, 125.0], [202.0, 139.0], [242.0, 138.0]]


def test_qualities_are_those_of_python(astronaut: Path) -> None:
    with Image.open(astronaut) as opened:
        sharp = opened.convert("RGB")
    turned = [[202.0, 102.0], [236.0, 101.0], [231.0, 125.0], [204.0, 139.0], [234.0, 138.0]]
    small = [[x / 4, y / 4] for x, y in UPRIGHT]
    cases = {
        "sharp": (sharp, UPRIGHT, 0.999),
        "unsure": (sharp, UPRIGHT, 0.8),
        "blurred": (sharp.filter(ImageFilter.GaussianBlur(3)), UPRIGHT, 0.999),
        "turned": (sharp, turned, 0.999),
        "small": (sharp.resize((128, 128)), small, 0.9),
        "at the edge": (
            sharp.crop((205, 60, 400, 400)),
            [[x - 205, y - 60] for x, y in UPRIGHT],
            1,
        ),
        "flat": (Image.new("RGB", (300, 300), (90, 120, 40)), UPRIGHT, 1),
        "in one place": (sharp, [[50.0, 50.0]] * 5, 1),
    }
    found = answers(
        **{
            name: {
                "task": "quality",
                "image": image_of(np.asarray(picture)),
                "face": {"score": score, "landmarks": points},
            }
            for name, (picture, points, score) in cases.items()
        }
    )
    for name, (picture, points, score) in cases.items():
        face = Detection((0.0, 0.0, 9.0, 9.0), score, np.array(points, np.float32))
        (expected,) = face_qualities([np.asarray(picture)], [[face]])
        assert found[name] == pytest.approx(expected, abs=0.02), name  # its pixels are rounded
    assert found["sharp"] > found["blurred"] > found["unsure"] > 0
    assert found["flat"] == found["in one place"] == 0
