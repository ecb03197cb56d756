"""A teacher's answers become taught faces: poses, tables, counterparts, cut-out photographs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motion import MESH, NAMES, TWINS, taught_faces
from PIL import Image

from pcnn.errors import InputError
from pcnn.training.teacher_answers import (
    TEMPLATE,
    TaughtFaces,
    poses,
    read_photographs,
    read_table,
    twins_of,
)


def _turn(axis: int, degrees: float) -> np.ndarray:
    """A rotation about x, y or z, right-handed."""
    angle = np.radians(degrees)
    a, b = [i for i in range(3) if i != axis]
    sign = -1 if axis == 1 else 1
    turn = np.eye(4)
    turn[[a, b], [a, b]] = np.cos(angle)
    turn[a, b], turn[b, a] = -sign * np.sin(angle), sign * np.sin(angle)
    return turn


def test_poses_of_turns_about_each_axis() -> None:
    # x to the right, y upwards, z towards the camera: about y the nose turns to the right, about
    # x downwards, about z the head turns counterclockwise.
    turns = np.stack([_turn(1, 30), _turn(0, 20), _turn(2, 10), 2 * np.eye(4)])
    expected = [[30, 0, 0], [0, -20, 0], [0, 0, -10], [0, 0, 0]]
    np.testing.assert_allclose(poses(turns), expected, atol=1e-4)


def test_a_turned_picture_changes_only_the_roll() -> None:
    head = _turn(1, 25) @ _turn(0, -15)
    np.testing.assert_allclose(poses((_turn(2, -15) @ head)[None]), [[25, 15, 15]], atol=1e-4)


def _table(**values: Any) -> dict[str, Any]:
    points = np.array([[*MESH]] * 3, np.float32) * 40 + 20
    return {
        "image": np.array(["a.png", "b.png", "c.png"]),
        "found": np.array([True, False, True]),
        "points": np.concatenate((points, points[..., :1]), 2),
        "movements": np.array([[0, 0.1, 0.2, 0.3]] * 3, np.float32),
        "names": np.array(["_neutral", *NAMES]),
        "matrix": np.stack([np.eye(4, dtype=np.float32)] * 3),
        "landmarks": points[:, :5],
        **values,
    }


def test_a_table_has_the_faces_that_were_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **_table())
    table = read_table(tmp_path / "t.npz")
    assert table["image"].tolist() == ["a.png", "c.png"]
    assert table["names"].tolist() == list(NAMES)
    np.testing.assert_allclose(table["movements"], [[0.1, 0.2, 0.3]] * 2)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.npz holds no teacher's answers"):
        read_table(tmp_path / "missing.npz")
    np.savez(tmp_path / "t.npz", points=np.ones(3))
    with pytest.raises(InputError, match=r"t\.npz holds no teacher's answers"):
        read_table(tmp_path / "t.npz")
    np.savez(tmp_path / "t.npz", **_table(found=np.zeros(3, bool)))
    with pytest.raises(InputError, match=r"t\.npz has answers for no face$"):
        read_table(tmp_path / "t.npz")


def _archive(path: Path) -> Path:
    """Photographs with a white spot at the chin, the sixth point of the mesh."""
    pixels = np.zeros((80, 80, 3), np.uint8)
    x, y = (np.array(MESH[5]) * 40 + 20).astype(int)
    pixels[y - 1 : y + 1, x - 1 : x + 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    with tarfile.open(path, "w") as archive:
        for name in ("a.png", "c.png"):
            member = tarfile.TarInfo(name)
            member.size = len(buffer.getvalue())
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    return path


def test_photographs_are_cut_with_their_points(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **_table())
    table = read_table(tmp_path / "t.npz")
    faces = _read(tmp_path, table)
    assert len(faces) == 2 and faces.pictures.shape[1:] == (192, 192, 3)
    # The landmarks lie where the template puts them, about the middle, the chin at its spot.
    side = 192 / 1.8
    expected = (torch.tensor(TEMPLATE) - 0.5) * side + 96
    torch.testing.assert_close(faces.landmarks[0], expected, atol=1e-3, rtol=0)
    y, x = (faces.pictures[0, ..., 0] > 100).nonzero().float().mean(0) + 0.5
    torch.testing.assert_close(torch.stack((x, y)), faces.points[0, 5], atol=0.6, rtol=0)
    assert faces.pose.abs().max() < 1e-3


def test_the_roll_of_a_face_upside_down_stays_small(tmp_path: Path) -> None:
    """The landmarks are turned by 170°, the head by −170°: between them lie 20°, not −340°."""
    np.savez(tmp_path / "t.npz", **_table())
    table = read_table(tmp_path / "t.npz")
    angle = np.radians(170)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    table["landmarks"] = (table["landmarks"] - 40) @ turn.T + 40
    table["pose"] = table["pose"] + np.array([0, 0, -170])
    assert _read(tmp_path, table).pose[:, 2].tolist() == pytest.approx([20, 20], abs=1e-2)


def _read(folder: Path, table: dict[str, Any]) -> TaughtFaces:
    # The teacher's points at the five landmarks are the first five of this mesh.
    return read_photographs(_archive(folder / "p.tar"), table)


def test_a_missing_photograph_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **_table(image=np.array(["x.png"] * 3)))
    with pytest.raises(InputError, match=r"p.tar has no photograph x.png"):
        _read(tmp_path, read_table(tmp_path / "t.npz"))
    with pytest.raises(InputError, match="cannot read archive"):
        read_photographs(tmp_path / "t.npz", read_table(tmp_path / "t.npz"))


def test_counterparts_are_found_in_many_faces() -> None:
    assert twins_of(taught_faces(60)).tolist() == list(TWINS)


def test_a_mesh_without_halves_is_refused() -> None:
    faces = taught_faces(20)
    crooked = faces.points.clone()
    crooked[:, 6:] += torch.tensor([20.0, 0.0])
    with pytest.raises(InputError, match="two equal halves"):
        twins_of(TaughtFaces(*(getattr(faces, n) for n in ("pictures", "landmarks")), crooked,
                             faces.movements, faces.pose, faces.names))  # fmt: skip
