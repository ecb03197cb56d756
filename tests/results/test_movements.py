"""What a face does, in dictionaries, rows and drawings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pcnn.results.mesh import draw_mesh
from pcnn.results.movements import ACTION_UNITS, FaceMotion, Pose, action_units, movement_columns
from pcnn.results.values import Face, Prediction

MOVEMENTS = {"jawOpen": 0.123456, "mouthSmileLeft": 0.9, "mouthSmileRight": 0.7}


def motion_of(points: int = 478, yaw: float = 0.0) -> FaceMotion:
    """A mesh on a circle about (100, 100)."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False)
    mesh = 100 + 60 * np.stack((np.sin(angles), np.cos(angles)), 1)
    return FaceMotion(MOVEMENTS, Pose(yaw, -4.567, 1.0), mesh.astype(np.float32))


def face_of(motion: FaceMotion | None) -> Face:
    points = np.array([[80, 80], [120, 80], [100, 105], [85, 130], [115, 130]], np.float32)
    return Face(
        *("happiness", 0.75, {"neutral": 0.25, "happiness": 0.75}, {}),
        *((40.0, 40.0, 160.0, 160.0), 0.9, points),
        motion=motion,
    )


def test_short_names() -> None:
    face = face_of(motion_of(yaw=12.0))
    assert face.movements == MOVEMENTS and face.pose == Pose(12.0, -4.567, 1.0)
    assert face.mesh is not None and face.mesh.shape == (478, 2)
    without = face_of(None)
    assert without.movements is without.pose is without.mesh is None


def test_dictionaries_are_rounded_json() -> None:
    written = json.loads(json.dumps(face_of(motion_of(3)).to_dict()))
    assert written["movements"]["jawOpen"] == 0.1235
    assert written["pose"] == {"yaw": 0.0, "pitch": -4.57, "roll": 1.0}
    assert written["mesh"][0] == [100.0, 160.0] and len(written["mesh"]) == 3
    assert "mesh" not in face_of(None).to_dict()


def test_rows_end_with_pose_and_movements() -> None:
    (row,) = Prediction((face_of(motion_of(yaw=7.0)),), None, 200, 200).rows()
    assert list(row)[-6:] == list(movement_columns(MOVEMENTS))
    assert row["yaw"] == 7.0 and row["mouthSmileLeft"] == 0.9
    assert movement_columns(()) == ()


def test_action_units_are_the_largest_of_their_movements() -> None:
    assert action_units(MOVEMENTS) == {"AU12": 0.9, "AU26": 0.123456}
    assert action_units({}) == {}


def test_the_page_has_the_keys_of_action_units() -> None:
    page = Path(__file__).parents[2] / "docs" / "movements.md"
    units = re.findall(r"^\| (AU\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert units == list(ACTION_UNITS)


def _drawn(motion: FaceMotion) -> np.ndarray:
    picture = Image.new("RGB", (200, 200), (90, 90, 90))
    draw_mesh(ImageDraw.Draw(picture, "RGBA"), motion, (255, 0, 0))
    return np.asarray(picture).astype(int)


def test_a_mesh_is_drawn_where_it_lies() -> None:
    changed = np.abs(_drawn(motion_of()) - 90).max(2) > 0
    y, x = changed.nonzero()
    assert 36 < x.min() < 44 and 156 < x.max() < 164 and 36 < y.min() < 44 and 156 < y.max() < 164


def test_the_forward_axis_points_where_the_face_looks() -> None:
    # The blue axis begins at the nose, point 1, and ends to the right of it for a yaw above 0.
    ends = []
    for yaw in (60.0, -60.0):
        drawn = _drawn(motion_of(yaw=yaw))
        blue = (np.abs(drawn - (86, 180, 233)).max(2) < 3).nonzero()[1]
        ends.append(float(blue.mean()))
    assert ends[0] > ends[1] + 10


def test_only_a_large_mesh_has_dots() -> None:
    assert not (_drawn(motion_of()) == 255).all(2).any()
    large = Image.new("RGB", (400, 400), (90, 90, 90))
    draw_mesh(ImageDraw.Draw(large, "RGBA"), motion_of(), (255, 0, 0), 2)
    assert (np.asarray(large) == 255).all(2).any()


def test_a_mesh_of_other_points_has_dots_alone() -> None:
    assert (_drawn(motion_of(12)) == 255).all(2).any()
    lost = FaceMotion({}, Pose(0, 0, 0), np.full((478, 2), np.nan, np.float32))
    assert (_drawn(lost) == 90).all()


def test_a_prediction_is_drawn_with_its_movements() -> None:
    pixels = np.full((300, 400, 3), 90, np.uint8)
    moving = Prediction((face_of(motion_of()),), None, 400, 300)
    still = Prediction((face_of(None),), None, 400, 300)
    plain = np.asarray(moving.draw(pixels))
    assert np.array_equal(plain, np.asarray(still.draw(pixels, mesh=True, movements=True)))
    assert not np.array_equal(plain, np.asarray(moving.draw(pixels, movements=True)))
    assert not np.array_equal(plain, np.asarray(moving.draw(pixels, mesh=True)))
