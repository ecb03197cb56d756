"""Pictures that already are faces, aligned by their landmarks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import torch
from motion import landmark_net
from numpy.typing import NDArray
from PIL import Image

from pcnn import Recognizer, weights
from pcnn.faces.alignment import align_faces, crop_transforms, find_landmarks
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms, picture_transforms
from pcnn.faces.interface import OneAtATime
from pcnn.faces.resampling import resample
from pcnn.networks.pcnn import ModelConfig
from pcnn.results.values import Detection
from pcnn.training.teacher_answers import TEMPLATE as TAUGHT
from pcnn.weights.landmarks import write_landmarks

TEMPLATE = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]], np.float32)
CONFIG = ModelConfig(size=64, mean=(0.5,), std=(0.25,))
# The face at 96 pixels with 48 around it.
MIDDLE = (48.0, 48.0, 144.0, 144.0)


class Seer:
    """Finds in every picture what it was told, and keeps the pictures."""

    def __init__(self, *found: Detection) -> None:
        self.found, self.seen = found, []

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> list[list[Detection]]:
        assert min_score is None  # its own least score decides
        self.seen += images
        return [list(self.found) for _ in images]


def found_at(points: NDArray[Any], box: tuple[float, float, float, float] = MIDDLE) -> Detection:
    """points: (5, 2) shares of the face's side."""
    return Detection(box, 0.9, (48 + 96 * points).astype(np.float32))


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_detector_sees_the_face_in_a_frame_of_its_edges() -> None:
    seer = Seer()
    levels = np.array([[0, 100], [200, 40]], np.uint8).repeat(48, 0).repeat(48, 1)
    assert find_landmarks([np.stack([levels] * 3, 2)], seer) == [None]
    (seen,) = seer.seen
    assert seen.shape == (192, 192, 3)
    assert [seen[y, x, 0] for y, x in ((0, 0), (0, 191), (191, 0), (191, 191))] == [0, 100, 200, 40]
    assert (seen[:48] == seen[48]).all()
    assert (seen[:, :48] == seen[:, 48:49]).all()


def test_landmarks_are_in_the_picture_s_own_pixels() -> None:
    (points,) = find_landmarks([picture(30, 60)], Seer(found_at(TEMPLATE)))
    np.testing.assert_allclose(points, TEMPLATE * (60, 30), atol=1e-4)


def test_the_best_face_of_the_middle_is_meant() -> None:
    beside = found_at(np.zeros((5, 2)), (0.0, 48.0, 60.0, 144.0))
    second = found_at(TEMPLATE / 2)
    (points,) = find_landmarks([picture(10, 10)], Seer(beside, found_at(TEMPLATE), second))
    np.testing.assert_allclose(points, TEMPLATE * 10, atol=1e-5)
    assert find_landmarks([picture(10, 10)], Seer(beside)) == [None]


def test_landmarks_in_their_places_leave_the_picture_as_it_is() -> None:
    pictures = [picture(48, 48), picture(31, 77)]
    (there, wide) = crop_transforms(pictures, TEMPLATE, CONFIG, Seer(found_at(TEMPLATE)))
    whole = picture_transforms(48, 48, CONFIG.size, CONFIG.layout)
    np.testing.assert_allclose(there, whole, atol=1e-5)
    points = TEMPLATE * (77, 31)  # no square: turned and scaled, not stretched
    expected = face_transforms([points], TEMPLATE, CONFIG.size, CONFIG.layout)
    np.testing.assert_allclose(wide, expected, atol=1e-4)


@pytest.mark.parametrize("detector", [None, Seer()])
def test_without_landmarks_the_whole_picture_is_taken(detector: Seer | None) -> None:
    (wide,) = crop_transforms([picture(31, 77)], TEMPLATE, CONFIG, detector)
    expected = picture_transforms(77, 31, CONFIG.size, CONFIG.layout)
    np.testing.assert_array_equal(wide, expected)
    assert crop_transforms([], TEMPLATE, CONFIG, detector) == []


def test_a_face_on_its_side_is_set_upright() -> None:
    """A quarter turn takes (x, y) to (1 − y, x); the aligned face is the one before the turn."""
    upright = torch.from_numpy(np.stack([picture(48, 48, seed)[..., 0] for seed in range(70)]))
    turned = upright.rot90(-1, (1, 2))
    points = np.stack([1 - TEMPLATE[:, 1], TEMPLATE[:, 0]], 1)
    aligned = align_faces(turned, TEMPLATE, 48, 48, Seer(found_at(points)))
    assert aligned.shape == (70, 48, 48)
    assert aligned.dtype == torch.uint8
    assert (aligned.int() - upright.int()).abs().max() <= 1


def test_aligning_resamples_as_training_does() -> None:
    faces = torch.from_numpy(picture(48, 48))[None]
    (aligned,) = align_faces(faces, TEMPLATE, 96, 48, Seer())
    expected = resample(faces.permute(0, 3, 1, 2).float(), 96)[0].permute(1, 2, 0)
    assert aligned.shape == (96, 96, 3)
    assert (aligned - expected).abs().max() <= 0.51


@pytest.fixture(scope="module")
def aligning() -> Recognizer:
    return Recognizer(device="cpu", align_crops=True)


def test_a_loose_and_tilted_crop_is_read_as_in_the_photograph(
    aligning: Recognizer, astronaut: Path
) -> None:
    photograph = Image.open(astronaut).convert("RGB")
    (face,) = aligning.predict(photograph).faces
    left, top, right, bottom = face.box
    side = 0.9 * (bottom - top)
    x, y = (left + right) / 2 + 12, (top + bottom) / 2 - 9
    tilted = photograph.rotate(20, Image.Resampling.BICUBIC, center=(x, y))
    crop = tilted.crop(tuple(int(v) for v in (x - side, y - side, x + side, y + side)))
    expected = np.array(list(face.scores.values()))
    read = aligning.predict_crops(crop)
    assert read.label == face.label
    np.testing.assert_allclose(list(read.scores.values()), expected, atol=0.03)
    vector, own = aligning.embed_crops(crop), aligning.embed(photograph)[0]
    assert vector @ own > 0.95
    explained = aligning.explain_crops(crop)
    np.testing.assert_allclose(
        list(explained.expression.scores.values()), list(read.scores.values()), atol=1e-3
    )


def test_the_weights_say_whether_crops_are_aligned(astronaut: Path) -> None:
    """`align_crops` overrules them."""
    for name in ("pcnn-ferplus", "small"):
        asked = weights.load_expression(name).aligned
        crop = Image.open(astronaut).convert("RGB").crop((150, 0, 310, 220))
        usual, other = (
            Recognizer(name, device="cpu", align_crops=each) for each in (None, not asked)
        )
        aligned = Recognizer(name, device="cpu", align_crops=asked)
        assert (usual.embed_crops(crop) == aligned.embed_crops(crop)).all()
        assert usual.embed_crops(crop) @ other.embed_crops(crop) < 0.999


def test_landmarks_that_are_none_are_not_aligned_by() -> None:
    """Of a detector that gives boxes alone the pictures are taken as they are."""
    same_place, nowhere = np.zeros((5, 2), np.float32), np.full((5, 2), np.nan, np.float32)
    for points in (same_place, nowhere, None, np.zeros((3, 2), np.float32)):
        seer = Seer(Detection(MIDDLE, 0.9, points))  # type: ignore[arg-type]
        assert find_landmarks([picture(20, 20)], seer) == [None]


def test_somebody_s_detector_is_called_by_one_thread_at_a_time() -> None:
    inside, most = 0, 0

    class Watched(Seer):
        def detect(
            self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
        ) -> list[list[Detection]]:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1
            return super().detect(images)

    detector = OneAtATime(Watched())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: detector.detect([picture(9, 9)]), range(8)))
    assert found == [[[]]] * 8
    assert most == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Seer:
    """What commands ask for landmarks: the packaged weights' detector, and weights that want it."""
    seer, load = Seer(found_at(TEMPLATE)), weights.load_expression
    monkeypatch.setattr(Detector, "load", lambda *_, **__: seer)
    monkeypatch.setattr(
        weights, "load_expression", lambda *asked: dataclasses.replace(load(*asked), aligned=True)
    )
    return seer


@pytest.mark.parametrize("command", ["saliency", "deconvnet", "embed", "predict"])
def test_commands_align_faces(
    command: str, asked: Seer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcnn.recognition.choices.load_expression", weights.load_expression)
    Image.fromarray(picture(48, 48)).save(tmp_path / "face.png")
    words = [str(tmp_path / "face.png"), "--faces"]
    output = {"saliency": "drawn", "deconvnet": "drawn.png", "embed": "f.npz", "predict": "f.json"}
    words += ["--output", str(tmp_path / output[command])]
    words += {"saliency": [], "deconvnet": ["--map", "face/layer1/0"]}.get(command, [])
    run = getattr(cli, command)
    assert run([*words, "--as-they-are"]) == 0
    assert not asked.seen
    assert run(words) == 0
    assert [seen.shape for seen in asked.seen] == [(192, 192, 3)]


@pytest.mark.train
@pytest.mark.parametrize("command", ["evaluate", "units", "deconvnet"])
def test_commands_align_data_sets(command: str, asked: Seer, tmp_path: Path) -> None:
    count = 10 if command == "units" else 3
    for name in ("happiness", "sadness"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(count):
            face = Image.fromarray(picture(48, 48, number))
            face.save(tmp_path / "faces" / name / f"{number}.png")
    weights = "pcnn-ferplus-only" if command == "deconvnet" else "small"
    words = ["--data", str(tmp_path / "faces"), "--weights", weights]
    if command == "deconvnet":
        words += ["--map", "face/layer1/0", "-o", str(tmp_path / "drawn.png")]
        assert cli.deconvnet([*words, "--as-they-are"]) == 0
        assert not asked.seen
    if command == "evaluate":
        words += ["--no-latency", "--bootstrap", "0"]
        assert cli.evaluate([*words, "--as-they-are"]) == 0
        assert not asked.seen
    if command == "units":
        words[-1] = "pcnn-ferplus-only"
        words += ["--permutations", "20"]
    assert getattr(cli, command)(words) == 0
    assert len(asked.seen) == 2 * count


def test_without_a_found_face_landmarks_are_refined_from_their_usual_places(
    tmp_path: Path,
) -> None:
    """Noise is no face; a network that moves every landmark to the right shows the start."""
    network = landmark_net()
    with torch.no_grad():
        network.points.weight.zero_()
        network.points.bias.copy_((torch.tensor(TAUGHT) + torch.tensor([0.1, 0.0])).flatten())
    path = tmp_path / "l.safetensors"
    write_landmarks(path, network, TAUGHT, {})
    pictures = [picture(48, 48), picture(40, 80, seed=1)]
    fine = Detector.load("mobilenet", landmarks=path)
    assert find_landmarks(pictures, Detector.load("mobilenet", landmarks=None)) == [None, None]
    places = np.array(
        [[0.326, 0.379], [0.666, 0.374], [0.502, 0.592], [0.365, 0.748], [0.636, 0.744]]
    )
    for found, pixels in zip(find_landmarks(pictures, fine), pictures, strict=True):
        assert found is not None
        moved = found / pixels.shape[1::-1] - places
        # A tenth of the view, which is wider than the face by a sixth.
        np.testing.assert_allclose(moved[:, 0], 0.1 * 7 / 6, atol=0.02)
        np.testing.assert_allclose(moved[:, 1], 0.0, atol=0.02)
