import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcnn.errors import InputError
from pcnn.faces.geometry import (
    AlignedFaces,
    covered_share,
    face_transforms,
    picture_transforms,
    similarity,
    transforms_of,
)
from pcnn.networks.regions import RegionLayout

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
TEMPLATE = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]]


def test_similarity_by_hand() -> None:
    """A quarter turn, doubled, moved by (10, 20): (x, y) → (10 − 2y, 20 + 2x)."""
    moved = np.array([[10 - 2 * y, 20 + 2 * x] for x, y in SQUARE])
    np.testing.assert_allclose(similarity(SQUARE, moved), [[0, -2, 10], [2, 0, 20]], atol=1e-12)


@given(
    st.floats(-math.pi, math.pi),
    st.floats(0.01, 100),
    st.floats(-1000, 1000),
    st.floats(-1000, 1000),
)
def test_similarity_recovers_any_similarity(angle: float, scale: float, x: float, y: float) -> None:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    expected = np.array([[c, -s, x], [s, c, y]])
    moved = SQUARE @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(similarity(SQUARE, moved), expected, rtol=1e-9, atol=1e-9)


def test_similarity_never_mirrors() -> None:
    mirrored = SQUARE * (-1, 1)
    linear = similarity(SQUARE, mirrored)[:, :2]
    assert np.linalg.det(linear) >= 0


def test_coincident_points_give_the_shift_alone() -> None:
    points = np.full((5, 2), 3.0)
    np.testing.assert_allclose(similarity(points, SQUARE), [[0, 0, 0.5], [0, 0, 0.5]])


def test_similarity_refuses_shapes() -> None:
    with pytest.raises(
        InputError, match=r"^similarity: source must be \(N, 2\), N ≥ 2, got \(1, 2\)$"
    ):
        similarity([[0, 0]], [[0, 0]])
    with pytest.raises(InputError, match=r"^similarity: target must be \(5, 2\), got \(4, 2\)$"):
        similarity(SQUARE, SQUARE[:4])


def test_face_view_reads_the_template_at_the_landmarks() -> None:
    """Landmarks of a face 100 pixels wide at (50, 30): its view's centre is the face's."""
    landmarks = (np.array(TEMPLATE) * 100 + (50, 30)).astype(np.float32)
    transforms = face_transforms([landmarks], TEMPLATE, 200, RegionLayout())
    assert transforms.shape == (1, 6, 2, 3)
    face = transforms[0, 0]
    # View pixel (0, 0) has its centre at 0.5 of 200, that is a quarter pixel into the face:
    # continuous 50.25, pixel 49.75.
    np.testing.assert_allclose(face @ (0, 0, 1), (49.75, 29.75), atol=1e-4)
    np.testing.assert_allclose(face[:, :2], 0.5 * np.eye(2), atol=1e-6)


def test_region_views_are_windows_of_the_face_view() -> None:
    rng = np.random.default_rng(3)
    landmarks = (np.array(TEMPLATE) * 80 + rng.normal(size=(5, 2))).astype(np.float32)
    layout = RegionLayout()
    transforms = face_transforms([landmarks], TEMPLATE, 96, layout)[0]
    for view, box in zip(transforms, layout.boxes(96).values(), strict=True):
        inside = np.array([2, 1, 1])
        np.testing.assert_allclose(
            view @ inside, transforms[0] @ (inside + np.array([box.left, box.top, 0])), atol=1e-4
        )


@pytest.mark.parametrize("degrees", [-30, 30, 90, 180])
def test_a_turned_face_comes_out_upright(degrees: float) -> None:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    landmarks = ((np.array(TEMPLATE) * 100) @ turn.T + 300).astype(np.float32)
    face = face_transforms([landmarks], TEMPLATE, 100, RegionLayout())[0, 0]
    for place, landmark in zip(TEMPLATE, landmarks, strict=True):
        pixel = np.array([place[0] * 100 - 0.5, place[1] * 100 - 0.5, 1])
        np.testing.assert_allclose(face @ pixel + 0.5, landmark, atol=1e-3)


def test_no_faces() -> None:
    assert face_transforms([], TEMPLATE, 96, RegionLayout()).shape == (0, 6, 2, 3)


def test_a_picture_is_stretched_to_the_view() -> None:
    face = picture_transforms(48, 24, 96, RegionLayout())[0, 0]
    # Both outer corners (continuous) agree: pixel −0.5 ↦ −0.5, pixel 95.5 ↦ 47.5 and 23.5.
    np.testing.assert_allclose(face @ (-0.5, -0.5, 1), (-0.5, -0.5), atol=1e-6)
    np.testing.assert_allclose(face @ (95.5, 95.5, 1), (47.5, 23.5), atol=1e-5)


def test_places_by_landmarks_or_by_transforms() -> None:
    rng = np.random.default_rng(7)
    landmarks = [np.array(TEMPLATE) * scale + rng.normal(size=(5, 2)) for scale in (40, 90, 0)]
    layout = RegionLayout()
    faces = AlignedFaces.of(landmarks, TEMPLATE)
    assert faces.landmarks.dtype == np.float32 and faces.landmarks.shape == (3, 5, 2)
    transforms = transforms_of(faces, 96, layout)
    assert transforms_of(transforms, 96, layout) is transforms
    for points, own in zip(faces.landmarks, transforms, strict=True):
        alone = similarity(np.array(TEMPLATE) * 96, points)  # of continuous coordinates
        shift = alone[:, :2] @ (0.5, 0.5) + alone[:, 2] - 0.5
        np.testing.assert_allclose(own[0], np.column_stack((alone[:, :2], shift)), rtol=1e-6)
    assert transforms_of(AlignedFaces.of([], TEMPLATE), 96, layout).shape == (0, 6, 2, 3)


def test_landmarks_of_another_shape() -> None:
    points = [np.ones((5, 2)), np.ones((4, 2))]
    with pytest.raises(
        InputError, match=r"^face_transforms: landmarks must be \(5, 2\), got \(4, 2\)$"
    ):
        face_transforms(points, TEMPLATE, 96, RegionLayout())
    with pytest.raises(
        InputError, match=r"^AlignedFaces.of: landmarks must be \(5, 2\), got \(4, 2\)$"
    ):
        AlignedFaces.of(points, TEMPLATE)


def test_the_share_of_a_box_that_another_covers() -> None:
    wide, small = (0.0, 0.0, 4.0, 2.0), (3.0, 1.0, 5.0, 2.0)  # they share one square
    assert covered_share(wide, small) == 1 / 8
    assert covered_share(small, wide) == 1 / 2
    assert covered_share(wide, (4.0, 0.0, 6.0, 2.0)) == 0  # an edge
    assert covered_share(wide, (5.0, 3.0, 6.0, 4.0)) == 0  # apart on both axes
    assert covered_share((1.0, 1.0, 1.0, 2.0), wide) == 0  # no area
