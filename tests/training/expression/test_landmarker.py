"""A teacher's landmarks align half of the training faces; its movements are learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pcnn.datasets.labels import FaceSet
from pcnn.errors import InputError
from pcnn.results.values import Detection
from pcnn.training.expression.landmarker import mixed_landmarks, movement_targets
from pcnn.training.expression.options import ExpressionOptions

OWN = np.array([[15, 18], [32, 18], [24, 28], [17, 36], [31, 36]], np.float32)


class Known:
    """A detector that finds one and the same face, but none in black pictures."""

    def detect(self, images: list[np.ndarray]) -> list[list[Detection]]:
        framed = 2 * OWN + 48  # faces are enlarged to 96 pixels and framed
        found = Detection((48.0, 48.0, 144.0, 144.0), 1.0, framed)
        return [[found] if image.any() else [] for image in images]


def faces(count: int) -> FaceSet:
    pixels = torch.full((count, 48, 48), 90, dtype=torch.uint8)
    pixels[1] = 0
    votes = torch.eye(2)[torch.arange(count) % 2]
    return FaceSet(pixels, votes, tuple(f"fer{i}" for i in range(count)), ("a", "b"))


def table(path: Path, count: int) -> Path:
    """Of each face a mesh whose eyes, nose and mouth are 3 pixels lower than the detector's."""
    mesh = np.zeros((count, 478, 3), np.float32)
    for points, place in zip(((33, 133), (362, 263), (1,), (61,), (291,)), OWN, strict=True):
        for side, point in enumerate(points):
            mesh[:, point, :2] = place + np.array((2 * side - len(points) + 1, 3))
    mesh[: count // 2, :, 0] += 1
    mesh[count // 2 :, :, 0] -= 1
    found = np.ones(count, bool)
    found[2] = False
    names = np.array([f"fer{i}" for i in reversed(range(count))])
    np.savez(path, image=names, found=found[::-1], points=mesh[::-1])
    return path


def test_half_of_the_faces_are_the_teachers(tmp_path: Path) -> None:
    count = 200
    found = mixed_landmarks(table(tmp_path / "t.npz", count), faces(count), Known())
    assert found.shape == (count, 5, 2) and found.dtype == np.float32
    taught = np.abs(found - OWN).max((1, 2)) > 0.5
    assert 0.4 < taught.mean() < 0.6
    # What the kinds differ by on average is taken away, what they differ by in a face is not.
    np.testing.assert_allclose(
        found[taught][:, :, 1], np.tile(OWN[:, 1], (taught.sum(), 1)), atol=0.1
    )
    assert taught[1], "where the detector finds nothing, the teacher is asked"
    assert not taught[2], "where the teacher finds nothing, the detector is asked"


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "t.npz", 4)
    with pytest.raises(InputError, match=r"landmarks .*t.npz: holds no landmarks .*fer4"):
        mixed_landmarks(path, faces(5), Known())
    with pytest.raises(InputError, match="holds no landmarks of these faces"):
        mixed_landmarks(tmp_path / "none.npz", faces(4), Known())
    with pytest.raises(InputError, match="landmarks= needs aligned="):
        ExpressionOptions(network="trunk", data="", output="", landmarks=str(path))


# --- movements ---


def movement_table(path: Path, count: int) -> tuple[str, ...]:
    """Answers for faces in reverse order; the second was not found."""
    generator = np.random.default_rng(0)
    movements = generator.random((count, 5)).astype(np.float32)
    movements[:, 4] = 0.2  # never varies
    found = np.arange(count) != 1
    names = np.array([f"face{i}" for i in range(count)])
    np.savez(
        path,
        image=names[::-1],
        found=found[::-1],
        movements=movements[::-1],
        names=np.array(["smileLeft", "jawOpen", "smileRight", "pucker", "cheekPuff"]),
    )
    return tuple(names.tolist())


def test_left_and_right_movements_are_averaged_and_constant_ones_left_out(tmp_path: Path) -> None:
    names = movement_table(tmp_path / "t.npz", 40)
    found = movement_targets(tmp_path / "t.npz", names)
    with np.load(tmp_path / "t.npz") as table:
        own = table["movements"][::-1]
    assert found.shape == (40, 3) and found.dtype == torch.float32
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()
    known = [i for i in range(40) if i != 1]
    smile = (own[:, 0] + own[:, 2])[known] / 2
    expected = (smile - smile.mean()) / smile.std()
    np.testing.assert_allclose(found[known, 0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(found[known].mean(0), 0, atol=1e-5)


def test_other_files_of_movements_are_refused(tmp_path: Path) -> None:
    names = movement_table(tmp_path / "t.npz", 4)
    with pytest.raises(InputError, match=r"movements .*t\.npz: holds no movements of these faces"):
        movement_targets(tmp_path / "t.npz", (*names, "stranger"))
    with np.load(tmp_path / "t.npz") as table:
        own = dict(table)
    for change, reason in (
        ({"found": np.zeros(4, bool)}, "the teacher found no face"),
        ({"movements": np.full((4, 5), 0.2, np.float32)}, "no movement varies"),
    ):
        np.savez(tmp_path / "v.npz", **{**own, **change})
        with pytest.raises(InputError, match=reason):
            movement_targets(tmp_path / "v.npz", names)
    np.savez(tmp_path / "u.npz", image=np.array(names))
    with pytest.raises(InputError, match="holds no movements"):
        movement_targets(tmp_path / "u.npz", names)
