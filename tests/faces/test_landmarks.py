"""Refinement of landmarks: points of the view go to the picture's, for any placing of the face."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from motion import landmark_file

from pcnn.errors import WeightsError
from pcnn.faces.detector import Detector
from pcnn.faces.landmarks import LandmarkRefiner
from pcnn.images import load_image
from pcnn.networks.landmarks import LandmarkConfig, LandmarkNet
from pcnn.networks.trunk import initialise
from pcnn.results.values import Detection
from pcnn.training.teacher_answers import TEMPLATE
from pcnn.weights.landmarks import LandmarkWeights

CPU = torch.device("cpu")
PORTRAIT = Path(__file__).parents[2] / "docs" / "images" / "astronaut.png"


def _weights(shift: tuple[float, float]) -> LandmarkWeights:
    """A network that sees every landmark at its template's place plus a shift of the view."""
    network = LandmarkNet(LandmarkConfig(size=32))
    initialise(network)
    network.start(torch.tensor(TEMPLATE) + torch.tensor(shift))
    with torch.no_grad():
        network.points.weight.zero_()
    return LandmarkWeights(network.eval(), TEMPLATE, Path("l.safetensors"), {})


def _face(angle: float, side: float, middle: tuple[float, float]) -> Detection:
    """A face whose landmarks lie where the template puts them, turned and scaled."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = (np.array(TEMPLATE) - 0.5) * side @ turn.T + middle
    return Detection(box=(1.0, 2.0, 30.0, 40.0), score=0.7, landmarks=points.astype(np.float32))


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, math.pi])
def test_the_views_places_become_the_pictures(angle: float) -> None:
    refiner = LandmarkRefiner(_weights((0.1, 0.05)), CPU)
    face = _face(angle, 40.0, (50.0, 60.0))
    picture = np.full((120, 100, 3), 90, np.uint8)
    (((found),),) = refiner.refine([picture], [(face,)])
    along = 40 * np.array([math.cos(angle), math.sin(angle)])
    down = 40 * np.array([-math.sin(angle), math.cos(angle)])
    expected = face.landmarks + 0.1 * along + 0.05 * down
    np.testing.assert_allclose(found.landmarks, expected, atol=1e-3)
    assert found.landmarks.dtype == np.float32
    assert (found.box, found.score) == (face.box, face.score)


def test_faces_keep_their_pictures_and_order() -> None:
    refiner = LandmarkRefiner(_weights((0.0, 0.0)), CPU)
    faces = [_face(0.1 * i, 30.0 + i, (40.0 + i, 50.0)) for i in range(5)]
    pictures = [np.full((90, 80 + i, 3), 40 * i, np.uint8) for i in range(4)]
    found = refiner.refine(pictures, [faces[:2], [], faces[2:], []])
    assert [len(own) for own in found] == [2, 0, 3, 0]
    for one, other in zip([face for own in found for face in own], faces, strict=True):
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=1e-3)
    assert refiner.refine([], []) == []
    assert refiner.refine(pictures[:1], [[]]) == [()]


def test_detectors_refine_or_leave_landmarks(tmp_path: Path) -> None:
    portrait = np.asarray(load_image(PORTRAIT))
    plain = Detector.load("mobilenet", landmarks=None)
    fine = Detector.load("mobilenet", landmarks=landmark_file(tmp_path / "l.safetensors"))
    ((before,),), ((after,),) = plain.detect([portrait]), fine.detect([portrait])
    assert (after.box, after.score) == (before.box, before.score)
    assert np.abs(after.landmarks - before.landmarks).max() > 0.1
    # A single search gives the detector's own.
    np.testing.assert_array_equal(fine.detect_upright([portrait])[0][0].landmarks, before.landmarks)
    with pytest.raises(WeightsError, match="holds weights of kind expression"):
        Detector.load("mobilenet", landmarks="small")


def test_the_packaged_network_corrects_wrong_landmarks() -> None:
    """Landmarks moved by up to a tenth of the eye distance return to within five hundredths."""
    portrait = np.asarray(load_image(PORTRAIT))
    detector = Detector.load("mobilenet")
    (faces,) = detector.detect([portrait])
    right = faces[0].landmarks
    eyes = float(np.linalg.norm(right[1] - right[0]))
    random = np.random.default_rng(4)
    for _ in range(10):
        wrong = right + eyes * random.uniform(-0.1, 0.1, (5, 2)).astype(np.float32)
        face = Detection(box=faces[0].box, score=1.0, landmarks=wrong)
        ((found,),) = detector.refine([portrait], [(face,)])
        assert np.linalg.norm(found.landmarks - right, axis=1).mean() < 0.05 * eyes
