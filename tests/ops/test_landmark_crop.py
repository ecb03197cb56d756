"""landmark_crop: examples worked by hand, and the compiled op against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ops.test_crop import PLAIN, picture
from tolerances import CROP, LANDMARKS, assert_near
from torch import Tensor

from pcnn import ops
from pcnn.faces.geometry import face_transforms
from pcnn.networks.regions import RegionLayout
from pcnn.ops import native, reference

SHARES = ((0.33, 0.38), (0.67, 0.38), (0.5, 0.59), (0.36, 0.76), (0.64, 0.75))
SQUARE = ((1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (1.0, 3.0), (3.0, 3.0))  # its middle is (2, 2)

pytestmark = pytest.mark.usefixtures("implementation")  # every test here runs with both


def template_of(size: int) -> list[tuple[float, float]]:
    return [(x * size, y * size) for x, y in SHARES]


def turned(scale: float, angle_rad: float, shift: tuple[float, float], size: int) -> Tensor:
    """(5, 2): the template in an image, where a face is `scale` times as large and turned."""
    a = scale * complex(math.cos(angle_rad), math.sin(angle_rad))
    points = [a * complex(x, y) + complex(*shift) for x, y in template_of(size)]
    return torch.tensor([[point.real, point.imag] for point in points], dtype=torch.float32)


def boxes_of(size: int) -> list[tuple[int, int, int, int]]:
    return list(RegionLayout().boxes(size).values())


def test_landmarks_at_the_places_of_the_template_copy_the_pixels() -> None:
    image = picture(5, 6)
    landmarks = torch.tensor([SQUARE]) + torch.tensor([1.0, 0.0])
    face, part = ops.landmark_crop(image, landmarks, SQUARE, [(0, 0, 4, 4), (1, 2, 4, 3)], **PLAIN)
    copied = image.float().permute(2, 0, 1)[None]
    torch.testing.assert_close(face, copied[:, :, 0:4, 1:5], atol=1e-4, rtol=0)
    torch.testing.assert_close(part, copied[:, :, 1:4, 3:4], atol=1e-4, rtol=0)


def test_a_quarter_turn_by_hand() -> None:
    """(x, y) of the face view, from its middle (2, 2), is (−y, x) from (2, 2) of the image."""
    image = picture(4, 4)
    landmarks = torch.tensor([[[2 - (y - 2), 2 + (x - 2)] for x, y in SQUARE]])
    (view,) = ops.landmark_crop(image, landmarks, SQUARE, [(0, 0, 4, 4)], **PLAIN)
    expected = image.float().rot90(1).permute(2, 0, 1)[None]
    torch.testing.assert_close(view, expected, atol=1e-3, rtol=0)


def test_the_best_similarity_of_landmarks_that_fit_no_face() -> None:
    """One landmark is moved by 5 to the right, four stay: the face moves by 1 and grows.

    It is the third, whose place is the middle of the template: it does not scale or turn. A face
    twice as large reads every second pixel, between two.
    """
    ramp = torch.arange(0, 120, 10, dtype=torch.uint8)[None, :, None].expand(12, 12, 3)
    landmarks = torch.tensor([[[2 * x, 2 * y] for x, y in SQUARE]])
    landmarks[0, 2, 0] += 5
    (view,) = ops.landmark_crop(ramp, landmarks, SQUARE, [(0, 0, 4, 4)], **PLAIN)
    # View pixel 0 has its centre at ½: continuous 1 + 1 in the image, pixel 1.5.
    expected = torch.tensor([15.0, 35, 55, 75]).expand(1, 3, 4, 4)
    torch.testing.assert_close(view, expected, atol=1e-3, rtol=0)


def test_mirror_images_follow_the_views() -> None:
    size = 31
    boxes = [*boxes_of(size), (-3, 5, 8, 40), (2, 3, 3, 4)]
    landmarks = torch.stack([turned(1.3, 0.2, (20, 9), size), turned(0.7, -1.0, (30, 40), size)])
    given = picture(90, 80), landmarks, template_of(size), boxes
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "footprint": 1.5}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        alone = ops.landmark_crop(*given, **options, dtype=dtype)
        both = ops.landmark_crop(*given, **options, dtype=dtype, mirror=True)
        assert len(both) == 2 * len(alone)
        for view, again, image in zip(alone, both[: len(alone)], both[len(alone) :], strict=True):
            assert torch.equal(view, again)
            assert torch.equal(image, view.flip(3))
            assert image.permute(0, 2, 3, 1).is_contiguous()


def test_no_faces_and_no_boxes_give_empty_results() -> None:
    image, options = picture(5, 7), {"mean": (0.5,), "std": (0.2,)}
    none = torch.ones(0, 5, 2)
    views = ops.landmark_crop(image, none, SQUARE, [(0, 0, 4, 4), (1, 1, 2, 4)], **options)
    assert [tuple(view.shape) for view in views] == [(0, 1, 4, 4), (0, 1, 1, 3)]
    both = ops.landmark_crop(image, none, SQUARE, [(0, 0, 4, 5)], mirror=True, **options)
    assert [tuple(view.shape) for view in both] == [(0, 1, 4, 5)] * 2
    assert ops.landmark_crop(image, torch.ones(2, 5, 2), SQUARE, [], **options) == []


@pytest.mark.parametrize("what", ["landmarks", "template"])
def test_coincident_points_give_one_colour(what: str) -> None:
    """The one at the landmarks' middle, here half way between two pixels: scale 0."""
    image = picture(6, 6)
    same = torch.tensor([3.0, 2.5]).expand(1, 5, 2)
    landmarks, template = same, SQUARE
    if what == "template":
        landmarks = same + torch.tensor([(-1, 0), (1, 0), (0, 0), (0, -1), (0, 1)])
        template = ((2.0, 7.0),) * 5
    (view,) = ops.landmark_crop(image, landmarks, template, [(0, 0, 3, 4)], **PLAIN)
    colour = (image[2, 2].float() + image[2, 3].float()) / 2
    torch.testing.assert_close(view, colour.view(1, 3, 1, 1).expand(1, 3, 3, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(10))
def test_landmarks_that_are_not_finite_read_the_first_pixel(bad: float, place: int) -> None:
    image = picture(9, 9)
    landmarks = torch.tensor([SQUARE, SQUARE]) + 2
    landmarks[0].view(-1)[place] = bad
    views = ops.landmark_crop(image, landmarks, SQUARE, [(0, 0, 4, 4)], mirror=True, **PLAIN)
    for view in views:
        first = image[0, 0].float().view(3, 1, 1).expand(3, 4, 4)
        torch.testing.assert_close(view[0], first, atol=1e-4, rtol=0)
    inner = image[2:6, 2:6].float().permute(2, 0, 1)  # the other face is as ever
    torch.testing.assert_close(views[0][1], inner, atol=1e-3, rtol=0)


@pytest.mark.parametrize("far", [3e38, -1e20, 1e9])
def test_landmarks_far_outside_read_inside_the_image(far: float) -> None:
    landmarks = turned(1.0, 0.0, (2, 3), 16)[None].clone()
    landmarks[0, 3, 1] = far
    views = ops.landmark_crop(picture(7, 8), landmarks, template_of(16), boxes_of(16), **PLAIN)
    for view in views:
        assert 1 <= view.min() <= view.max() <= 255


def test_more_boxes_than_one_launch_takes() -> None:
    image, size = picture(40, 44), 12
    landmarks = torch.stack([turned(1.1, 0.3, (5, 6), size), turned(2.1, 0.1, (9, 8), size)])
    boxes = [(index % 4, index % 3, index % 4 + 2, index % 3 + 3) for index in range(35)]
    options = {**PLAIN, "mirror": True, "footprint": 1.0, "dtype": torch.float32}
    views = ops.landmark_crop(image, landmarks, template_of(size), boxes, **options)
    expected = reference.landmark_crop(image, landmarks, template_of(size), boxes, **options)
    for view, other in zip(views, expected, strict=True):
        torch.testing.assert_close(view, other, atol=255 * LANDMARKS, rtol=0)


def test_image_and_landmarks_of_any_memory_layout() -> None:
    whole, size = picture(40, 60), 20
    images = [
        whole[5:30, 7:50],  # offset, rows apart
        whole.permute(2, 0, 1).contiguous().permute(1, 2, 0),  # planes
        whole[::3, ::2],
        whole.transpose(0, 1),
        whole[:, :1].expand(40, 30, 3),  # columns of stride 0
    ]
    points = torch.stack([turned(0.8, 0.2, (9, 4), size), turned(1.2, -0.2, (3, 8), size)])
    layouts = [
        points.transpose(0, 2).contiguous().transpose(0, 2),
        torch.cat((points, points), 2)[..., 1:3].flip(2).contiguous().flip(2),
        torch.stack((points, points), 1)[:, 1],
    ]
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    for image in images:
        for landmarks in layouts:
            given = image, landmarks, template_of(size), boxes_of(size)
            contiguous = image.contiguous(), landmarks.contiguous(), *given[2:]
            expected = ops.landmark_crop(*contiguous, **options)
            for view, other in zip(ops.landmark_crop(*given, **options), expected, strict=True):
                assert torch.equal(view, other)
                assert view.permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("size", [48, 97])
def test_the_same_as_crop_regions_of_the_faces_transforms(size: int) -> None:
    """As the package composes them on the host, from landmarks that fit no similarity."""
    generator = np.random.default_rng(5)
    landmarks = np.stack(
        [turned(scale, angle, (90, 70), size).numpy() for scale, angle in ((0.6, 0.3), (2.2, -2.0))]
    )
    landmarks += generator.normal(size=landmarks.shape).astype(np.float32)
    maps = face_transforms(list(landmarks), SHARES, size, RegionLayout())
    boxes = RegionLayout().boxes(size).values()
    options = {"mean": (0.5,), "std": (0.25,), "footprint": 2.0}
    image = picture(200, 220)
    sizes = [box.size for box in boxes]
    expected = ops.crop_regions(image, torch.from_numpy(maps), sizes, **options)
    views = ops.landmark_crop(
        image, torch.from_numpy(landmarks), template_of(size), list(boxes), **options
    )
    for view, other in zip(views, expected, strict=True):
        torch.testing.assert_close(view, other, atol=LANDMARKS, rtol=0)


def test_regions_and_their_mirror_images_are_copies() -> None:
    """Exactly, though their maps are rounded each by itself; and so are their mirror images."""
    size = 97
    landmarks = torch.stack([turned(1.1, 0.2, (61, 70), size), turned(1.9, -0.4, (9, 20), size)])
    given = picture(200, 220), landmarks, template_of(size), boxes_of(size)
    views = ops.landmark_crop(*given, mean=(0.5,), std=(0.25,), mirror=True)
    for index, (top, left, bottom, right) in enumerate(boxes_of(size)):
        part = views[0][:, :, top:bottom, left:right]
        if ops._implementation is native:
            assert torch.equal(views[index], part)
            assert torch.equal(views[6 + index], part.flip(3))
        torch.testing.assert_close(views[index], part, atol=LANDMARKS, rtol=0)


def test_no_gradient() -> None:
    landmarks = torch.tensor([SQUARE]).requires_grad_()
    views = ops.landmark_crop(picture(5, 5), landmarks, SQUARE, [(0, 0, 4, 4)], **PLAIN)
    assert not any(view.requires_grad for view in views)


def sides() -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([1, 2, 3, 7, 13, 31, 127, 299, 300]), st.integers(1, 300))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    image=st.tuples(sides(), sides()),
    size=st.integers(8, 40),
    faces=st.integers(0, 3),
    scale=st.floats(1 / 40, 10),
    angle_rad=st.floats(-math.pi, math.pi),
    shift=st.tuples(st.floats(-400, 700), st.floats(-400, 700)),
    noise=st.sampled_from([0.0, 0.1, 2.0]),
    footprint=st.sampled_from([0.3, 1.0, 1.7]),
    grey=st.booleans(),
    mirror=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@example((1, 1), 8, 1, 10.0, 1.0, (0.0, 0.0), 0.0, 1.0, True, True, torch.float32)
@example((300, 299), 40, 2, 10.0, 0.5, (40.0, 50.0), 2.0, 1.7, False, False, torch.bfloat16)
@example((17, 300), 33, 1, 1 / 40, -2.0, (700.0, -400.0), 0.1, 1.0, False, True, torch.float16)
def test_native_equals_reference_from_landmarks(  # noqa: PLR0913, PLR0917
    image: tuple[int, int],
    size: int,
    faces: int,
    scale: float,
    angle_rad: float,
    shift: tuple[float, float],
    noise: float,
    footprint: float,
    grey: bool,
    mirror: bool,
    dtype: torch.dtype,
) -> None:
    pixels = picture(*image, seed=faces)
    landmarks = turned(scale, angle_rad, shift, size).repeat(faces, 1, 1)
    landmarks += noise * torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(size))
    landmarks *= 1 + torch.arange(faces).view(-1, 1, 1) / 7
    colours = 1 if grey else 3
    options = {"mean": (0.41, 0.52, 0.63)[:colours], "std": (0.21, 0.32, 0.23)[:colours]}
    options |= {"footprint": footprint, "mirror": mirror}
    given = pixels, landmarks, template_of(size), boxes_of(size)
    results = ops.landmark_crop(*given, **options, dtype=dtype)
    expected = reference.landmark_crop(*given, **options, dtype=torch.float32)
    assert len(results) == len(expected) == 6 * (1 + mirror)
    for result, other in zip(results, expected, strict=True):
        assert result.dtype == dtype
        assert_near(result, other, LANDMARKS)
    assert CROP < LANDMARKS < 0.5 / 255 / 0.2  # less than half a level
