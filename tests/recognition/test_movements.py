"""Movements of faces in pictures, on a small random network: places, poses, and all results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from motion import MESH, NAMES, movement_file
from numpy.typing import NDArray

from pcnn import InputError, Recognizer, WeightsError
from pcnn.embeddings import ValueHead
from pcnn.faces.geometry import similarity
from pcnn.recognition.batches import Picture
from pcnn.recognition.movements import MovementReader
from pcnn.results.values import Detection, Face
from pcnn.training.teacher_answers import TEMPLATE


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return movement_file(tmp_path_factory.mktemp("movements") / "m.safetensors")


def _picture(side: int = 120) -> Picture:
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack((2 * x, 2 * y, 60 + x), 2).clip(0, 255).astype(np.uint8)
    return Picture(pixels, False, "picture")


def _face(angle: float = 0.0, side: float = 60.0, shift: float = 30.0) -> Detection:
    """A face whose landmarks are those of the template, turned clockwise about its middle."""
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    points = (np.array(TEMPLATE) - 0.5) @ turn.T * side + side / 2 + shift
    return Detection((shift, shift, shift + side, shift + side), 0.9, points.astype(np.float32))


class Planted:
    """A detector that always finds the same face."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> list[tuple[Detection, ...]]:
        return [(_face(), _face(shift=40.0)) for _ in images]


def test_the_mesh_lies_in_the_picture(weights: Path) -> None:
    reader = MovementReader(weights, torch.device("cpu"))
    (motion,) = reader.read([_picture()], [[_face()]])
    assert tuple(motion.movements) == reader.names == NAMES
    assert all(0 <= value <= 1 for value in motion.movements.values())
    # The network's mesh starts at MESH; what it adds is small.
    expected = np.array(MESH) * 60 + 30
    assert np.abs(motion.mesh - expected).mean() < 6


def test_a_turned_face_has_the_turned_mesh_and_roll(weights: Path) -> None:
    # Of a picture of one colour the network sees the same at every angle.
    plain = Picture(np.full((120, 120, 3), (90, 120, 150), np.uint8), False, "picture")
    reader = MovementReader(weights, torch.device("cpu"))
    upright, turned = reader.read([plain, plain], [[_face()], [_face(170.0)]])
    there = similarity(_face().landmarks, _face(170.0).landmarks)
    expected = upright.mesh @ there[:, :2].T + there[:, 2]
    np.testing.assert_allclose(turned.mesh, expected, atol=1e-2)
    assert turned.pose.yaw == pytest.approx(upright.pose.yaw, abs=1e-3)
    roll = (turned.pose.roll - upright.pose.roll) % 360
    assert roll == pytest.approx(170, abs=1e-2) and -180 <= turned.pose.roll < 180


def test_with_mirror_images_a_mirrored_face_has_the_mirrored_motion(tmp_path: Path) -> None:
    reader = MovementReader(
        movement_file(tmp_path / "m.safetensors", mirror=True), torch.device("cpu")
    )
    views = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        one, two = reader.answer(views), reader.answer(views.flip(3))
    torch.testing.assert_close(one.movements, two.movements[:, [0, 2, 1]])
    torch.testing.assert_close(one.pose, two.pose * torch.tensor([-1.0, 1.0, -1.0]))
    torch.testing.assert_close(one.points[:, 2, 0], 1 - two.points[:, 2, 0])  # the nose


def test_the_prepared_network_answers_as_the_plain_one(weights: Path) -> None:
    reader = MovementReader(weights, torch.device("cpu"))
    views = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        pairs = zip(reader.answer(views), reader._network(views), strict=True)
        for found, expected in pairs:
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_pictures_without_faces(weights: Path) -> None:
    reader = MovementReader(weights, torch.device("cpu"))
    assert reader.read([_picture()], [[]]) == [] and reader.read([], []) == []


def test_the_recognizer_gives_movements_when_asked(weights: Path) -> None:
    recognizer = Recognizer("small", Planted(), "cpu", movements=weights)
    assert recognizer.movements == NAMES
    first, second = recognizer.predict(_picture().pixels).faces
    assert first.mesh is not None and first.mesh.shape == (len(MESH), 2)
    assert second.mesh is not None and (second.mesh - first.mesh).mean() > 5
    assert list(first.to_dict())[-3:] == ["movements", "pose", "mesh"]
    without = Recognizer("small", Planted(), "cpu")
    assert without.movements == ()
    face = without.predict(_picture().pixels).faces[0]
    assert face.motion is None and face.scores == first.scores


def test_names_of_a_head_are_no_other_columns(weights: Path) -> None:
    plain = Recognizer("small", Planted(), "cpu")
    size, sha256 = plain.embedding_size, plain.weights_sha256
    for name, moving, message in (
        ("happiness", False, "number 'happiness' is also a class"),
        ("yaw", True, "number 'yaw' is also a column of movements"),
        (NAMES[0], True, f"number '{NAMES[0]}' is also a column of movements"),
        ("quality", False, "number 'quality' is also a column of tables"),
    ):
        matrix, bias = np.ones((1, size), np.float32), np.zeros(1, np.float32)
        head = ValueHead((name,), matrix, bias, sha256)
        with pytest.raises(InputError, match=message):
            Recognizer("small", Planted(), "cpu", head=head, movements=moving and weights)
        if moving:
            assert Recognizer("small", Planted(), "cpu", head=head).value_names == (name,)


class _Own(Recognizer):
    pass


def test_a_copy_for_another_process_reads_movements(weights: Path) -> None:
    make, arguments = _Own("small", Planted(), "cpu", movements=weights).__reduce__()
    copied = make(*arguments)
    assert copied.movements == NAMES and type(copied) is _Own


def test_an_explained_face_has_what_prediction_gives_it(weights: Path) -> None:
    plain = Recognizer("pcnn-ferplus-only", Planted(), "cpu")
    matrix = np.ones((1, plain.embedding_size), np.float32)
    head = ValueHead(("valence",), matrix, np.zeros(1, np.float32), plain.weights_sha256)
    recognizer = Recognizer("pcnn-ferplus-only", Planted(), "cpu", head=head, movements=weights)
    picture = _picture().pixels
    for explained, face in zip(
        recognizer.explain(picture), recognizer.predict(picture).faces, strict=True
    ):
        found = explained.expression
        assert isinstance(found, Face) and (found.label, found.box) == (face.label, face.box)
        assert (found.values, found.quality) == (face.values, face.quality)
        assert found.movements == face.movements and found.movements
        assert found.confidence == pytest.approx(face.confidence, abs=1e-4)
    crop = recognizer.explain_crops(picture).expression
    assert crop.values == recognizer.predict_crops(picture).values != {}


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(WeightsError, match="mobile: holds weights of kind expression"):
        Recognizer("small", Planted(), "cpu", movements="mobile")


@pytest.mark.tables
def test_tables_have_movements_pose_and_mesh(weights: Path) -> None:
    from pcnn.results.tables import to_arrow, to_pandas

    recognizer = Recognizer("small", Planted(), "cpu", movements=weights)
    prediction = recognizer.predict(_picture().pixels)
    table = to_arrow(prediction)
    assert table.schema.names[-7:] == ["yaw", "pitch", "roll", *NAMES, "mesh"]
    mesh = np.array(table["mesh"][0].as_py()).reshape(-1, 2)
    np.testing.assert_allclose(mesh, prediction.faces[0].mesh, rtol=1e-5)
    frame = to_pandas(prediction)
    assert list(frame.columns) == table.schema.names
    assert frame.jawOpen.tolist() == pytest.approx(table["jawOpen"].to_pylist())
    # Without faces only names given beforehand make columns.
    none = prediction.__class__((), None, 9, 9)
    assert "yaw" not in to_arrow(none).schema.names
    empty = to_arrow(none, classes=recognizer.classes, movements=recognizer.movements)
    assert empty.schema.names == table.schema.names and empty["mesh"].to_pylist() == [None]
