"""The packaged weights still give the answers they were released with."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from make_golden import DETECTORS, GOLDEN, WEIGHTS, answers


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(GOLDEN.read_text())
    return loaded


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return answers()


# Processors round differently; what they may move a probability by is far below what anyone reads
# from it, while exchanged classes, a shifted crop or other weights move it by tenths.
PROBABILITY = 2e-3
PIXELS = 0.1


@pytest.mark.parametrize("name", WEIGHTS)
def test_expressions(name: str, golden: dict[str, Any], found: dict[str, Any]) -> None:
    assert list(found[name]) == list(golden[name])
    assert found[name]["sha256"] == golden[name]["sha256"]
    for picture in set(golden[name]) - {"sha256"}:
        assert list(found[name][picture]) == list(golden[name][picture])
        assert found[name][picture] == pytest.approx(golden[name][picture], abs=PROBABILITY)


@pytest.mark.parametrize("name", DETECTORS)
def test_detections(name: str, golden: dict[str, Any], found: dict[str, Any]) -> None:
    expected, got = golden[name], found[name]
    assert got["sha256"] == expected["sha256"] and got["faces"] == expected["faces"] == 1
    assert got["score"] == pytest.approx(expected["score"], abs=PROBABILITY)
    np.testing.assert_allclose(got["box"], expected["box"], atol=PIXELS)
    np.testing.assert_allclose(got["landmarks"], expected["landmarks"], atol=PIXELS)


def test_refined_landmarks(golden: dict[str, Any], found: dict[str, Any]) -> None:
    expected, got = golden["landmarks"], found["landmarks"]
    assert got["sha256"] == expected["sha256"]
    np.testing.assert_allclose(got["landmarks"], expected["landmarks"], atol=PIXELS)


def test_movements(golden: dict[str, Any], found: dict[str, Any]) -> None:
    expected, got = golden["movements"], found["movements"]
    assert got["sha256"] == expected["sha256"]
    # The detector's landmarks may move by PIXELS, and the face's view with them.
    assert got["movements"] == pytest.approx(expected["movements"], abs=10 * PROBABILITY)
    assert got["pose"] == pytest.approx(expected["pose"], abs=0.5)
    np.testing.assert_allclose(got["mesh"], expected["mesh"], atol=5 * PIXELS)


def test_the_portrait_smiles_and_looks_ahead(found: dict[str, Any]) -> None:
    movements, pose = found["movements"]["movements"], found["movements"]["pose"]
    assert min(movements["mouthSmileLeft"], movements["mouthSmileRight"]) > 0.5
    assert movements["jawOpen"] < 0.3 and max(map(abs, pose.values())) < 20


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_portrait_is_happy(name: str, found: dict[str, Any]) -> None:
    scores = found[name]["portrait"]
    assert max(scores, key=scores.get) == "happiness"
