"""crop_regions: examples worked by hand, and the compiled op against the reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import COPIED, CROP, assert_near
from torch import Tensor

from pcnn import ops
from pcnn.faces.geometry import face_transforms
from pcnn.networks.regions import RegionLayout
from pcnn.ops import native, reference

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # leaves levels as they are

pytestmark = pytest.mark.usefixtures("implementation")  # every test here runs with both


def picture(height: int, width: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def crop_levels(
    image: Tensor, transform: object, size: tuple[int, int], **options: float
) -> Tensor:
    transforms = torch.tensor(transform, dtype=torch.float32)[None, None]
    (view,) = ops.crop_regions(image, transforms, [size], **PLAIN, **options)
    return view[0].permute(1, 2, 0)  # (h, w, 3)


def test_identity_copies_the_pixels_and_repeats_the_edges() -> None:
    image = picture(2, 3)
    view = crop_levels(image, IDENTITY, (3, 5))
    rows, columns = [0, 1, 1], [0, 1, 2, 2, 2]
    torch.testing.assert_close(view, image[rows][:, columns].float(), atol=1e-4, rtol=0)


def test_half_a_pixel_to_the_right_is_the_mean_of_two() -> None:
    image = torch.tensor([[[10, 20, 30], [20, 40, 60], [40, 80, 120]]], dtype=torch.uint8)
    view = crop_levels(image, ((1, 0, 0.5), (0, 1, 0)), (1, 3))
    expected = torch.tensor([[[15.0, 30, 45], [30, 60, 90], [40, 80, 120]]])
    torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


def test_shrinking_by_two_averages_two_by_two() -> None:
    # View pixel 0 has its centre between pixels 0 and 1; its four samples are those very pixels.
    image = torch.tensor([[[0], [100]], [[40], [60]]], dtype=torch.uint8).expand(2, 2, 3)
    view = crop_levels(image, ((2, 0, 0.5), (0, 2, 0.5)), (1, 1))
    torch.testing.assert_close(view, torch.full((1, 1, 3), 50.0), atol=1e-4, rtol=0)


def test_footprint_spreads_the_samples() -> None:
    # k = ceil(1 · 2) = 2 samples at ∓½: on a ramp of 10 a pixel they average to the centre, but at
    # the edge the left one reads the edge pixel.
    ramp = torch.arange(0, 50, 10, dtype=torch.uint8)[None, :, None].expand(1, 5, 3)
    view = crop_levels(ramp, IDENTITY, (1, 5), footprint=2.0)
    expected = torch.tensor([2.5, 10, 20, 30, 37.5])[None, :, None].expand(1, 5, 3)
    torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


def test_grey_is_luma_normalised() -> None:
    image = torch.tensor([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=torch.uint8)
    transforms = torch.tensor(IDENTITY)[None, None]
    (view,) = ops.crop_regions(image, transforms, [(1, 3)], mean=(0.5,), std=(0.25,))
    expected = (torch.tensor([[[[0.299, 0.587, 0.114]]]]) - 0.5) / 0.25
    torch.testing.assert_close(view, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38, -3e38, 1e20])
@pytest.mark.parametrize("place", range(6))
def test_impossible_transforms_read_inside_the_image(bad: float, place: int) -> None:
    transform = torch.tensor(IDENTITY).flatten()
    transform[place] = bad
    image = picture(5, 7)
    transforms = transform.view(1, 1, 2, 3)
    (view,) = ops.crop_regions(image, transforms, [(4, 6)], **PLAIN)
    (expected,) = reference.crop_regions(
        image, transforms, [(4, 6)], **PLAIN, footprint=1.0, dtype=torch.float32
    )
    torch.testing.assert_close(view, expected, atol=255 * CROP, rtol=0)
    assert 1 <= view.min() <= view.max() <= 255


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (40, 30)])
@pytest.mark.parametrize("scale", [0.4, 1.7, 5.0, 3e38, math.nan, math.inf])
def test_the_order_of_the_numbers_in_memory_changes_no_bit(
    size: tuple[int, int], scale: float
) -> None:
    """Neighbouring channels are computed many at a time, others one by one."""
    image = picture(*size)
    transforms = torch.tensor([[[[scale, -0.2, -1.5], [0.2, scale, -2.5]]]])
    planar = image.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    wide = torch.cat((image, image), 2)[:, :, :3]  # with three numbers between pixels
    packed, *others = (
        ops.crop_regions(own, transforms, [(9, 130)], **PLAIN) for own in (image, planar, wide)
    )
    for (other,) in others:
        torch.testing.assert_close(packed[0], other, rtol=0, atol=0, equal_nan=True)


def test_no_faces_and_no_views_give_empty_results() -> None:
    image = picture(5, 7)
    sizes = [(3, 4), (1, 1)]
    views = ops.crop_regions(image, torch.ones(0, 2, 2, 3), sizes, mean=(0.5,), std=(0.2,))
    assert [tuple(view.shape) for view in views] == [(0, 1, 3, 4), (0, 1, 1, 1)]
    assert ops.crop_regions(image, torch.ones(2, 0, 2, 3), [], mean=(0.5,), std=(0.2,)) == []


def test_more_views_than_one_launch_takes() -> None:
    image = picture(9, 9)
    sizes = [(1 + index % 3, 2) for index in range(35)]
    transforms = torch.tensor(IDENTITY).repeat(2, 35, 1, 1)
    transforms[:, :, 0, 2] += torch.arange(35) / 10
    views = ops.crop_regions(image, transforms, sizes, **PLAIN)
    expected = reference.crop_regions(
        image, transforms, sizes, **PLAIN, footprint=1.0, dtype=torch.float32
    )
    for view, other in zip(views, expected, strict=True):
        torch.testing.assert_close(view, other, atol=255 * CROP, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_image_and_transforms_of_any_memory_layout(dtype: torch.dtype) -> None:
    whole = picture(40, 60)
    images = [
        whole[5:30, 7:50],  # offset, rows apart
        whole.permute(2, 0, 1).contiguous().permute(1, 2, 0),  # planes
        whole[::3, ::2],
        whole.transpose(0, 1),
        whole[:, :1].expand(40, 30, 3),  # columns of stride 0
    ]
    transforms = torch.tensor([[0.7, 0.3, 2.2], [-0.4, 0.9, 8.1]]).repeat(3, 4, 1, 1)
    transforms = transforms[::2, 1::2]
    sizes = [(7, 5), (1, 9)]
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    for image in images:
        views = ops.crop_regions(image, transforms, sizes, **options, dtype=dtype)
        expected = reference.crop_regions(
            image, transforms, sizes, **options, footprint=1.0, dtype=torch.float32
        )
        for view, other in zip(views, expected, strict=True):
            assert view.dtype == dtype
            assert view.permute(0, 2, 3, 1).is_contiguous()
            assert_near(view, other, CROP)


def test_the_number_of_threads_changes_nothing() -> None:
    image = picture(300, 400)
    transforms = torch.tensor([[1.7, 0.3, 2.2], [-0.4, 1.9, 8.1]]).repeat(3, 2, 1, 1)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            results.append(ops.crop_regions(image, transforms, [(97, 101), (50, 3)], **PLAIN))
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_views_within_the_first_and_beside_it(dtype: torch.dtype) -> None:
    """Parts of the first view are copied from it; what only nearly is one is not."""
    image = picture(90, 80)
    first = torch.tensor([[1.75, -0.5, 10.25], [0.5, 1.75, -3.5]])
    places = ((0, 0), (3, 5), (12, 8), (13, 8), (-1, 0), (3, 5.5), (2.25, 4))  # top, left
    views = [first]
    for top, left in places:
        shifted = first.clone()
        shifted[:, 2] += first[:, :2] @ torch.tensor([left, top], dtype=torch.float32)
        views.append(shifted)
    larger = first.clone()
    larger[:, :2] *= 1.5
    views += [larger, torch.full((2, 3), math.nan), torch.zeros(2, 3)]
    transforms = torch.stack([torch.stack(views), torch.stack(views) + 0.125])
    sizes = [(20, 16), (20, 16)] + [(8, 8)] * (len(views) - 2)
    options = {"mean": (0.41, 0.52, 0.63), "std": (0.21, 0.32, 0.23), "footprint": 1.5}
    found = ops.crop_regions(image, transforms, sizes, **options, dtype=dtype)
    expected = reference.crop_regions(image, transforms, sizes, **options, dtype=torch.float32)
    for view, other in zip(found, expected, strict=True):
        assert_near(view, other, CROP)


def test_a_face_s_regions_are_its_own_pixels() -> None:
    """Exactly, though their maps are rounded each by itself."""
    layout = RegionLayout()
    landmarks = np.array([[61, 70], [102, 64], [86, 93], [70, 116], [104, 110]], np.float32)
    template = [[0.33, 0.38], [0.67, 0.38], [0.5, 0.59], [0.36, 0.76], [0.64, 0.75]]
    maps = face_transforms([landmarks, landmarks * 1.3], template, 97, layout)
    boxes = list(layout.boxes(97).values())
    given = picture(200, 220), torch.from_numpy(maps), [box.size for box in boxes]
    options = {"mean": (0.5,), "std": (0.25,), "footprint": 2.0, "dtype": torch.float32}
    views = ops.crop_regions(*given, **options)
    expected = reference.crop_regions(*given, **options)
    for box, view, other in zip(boxes, views, expected, strict=True):
        part = views[0][:, :, box.top : box.bottom, box.left : box.right]
        if ops._implementation is native:
            assert torch.equal(view, part)
        torch.testing.assert_close(view, other, atol=COPIED, rtol=0)


def sides() -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from([1, 2, 3, 7, 13, 31, 127, 299, 300]), st.integers(1, 300))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    image=st.tuples(sides(), sides()),
    views=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=3),
    faces=st.integers(0, 3),
    scale=st.floats(1 / 40, 10),
    angle_rad=st.floats(-math.pi, math.pi),
    shift=st.tuples(st.floats(-400, 700), st.floats(-400, 700)),
    footprint=st.sampled_from([0.3, 1.0, 1.7]),
    grey=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@example((1, 1), [(1, 1)], 1, 10.0, 1.0, (0.0, 0.0), 1.0, True, torch.float32)
@example((300, 299), [(5, 9)], 2, 10.0, 0.5, (40.0, 50.0), 1.7, False, torch.bfloat16)
@example((17, 300), [(40, 37)], 1, 1 / 40, -2.0, (1e4, -1e4), 1.0, False, torch.float16)
def test_native_equals_reference(  # noqa: PLR0913, PLR0917
    image: tuple[int, int],
    views: list[tuple[int, int]],
    faces: int,
    scale: float,
    angle_rad: float,
    shift: tuple[float, float],
    footprint: float,
    grey: bool,
    dtype: torch.dtype,
) -> None:
    pixels = picture(*image, seed=faces)
    cosine, sine = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
    transform = torch.tensor([[cosine, -sine, shift[0]], [sine, cosine, shift[1]]])
    transforms = transform.repeat(faces, len(views), 1, 1)
    transforms *= 1 + torch.arange(faces * len(views)).view(faces, len(views), 1, 1) / 7
    colours = 1 if grey else 3
    mean, std = (0.41, 0.52, 0.63)[:colours], (0.21, 0.32, 0.23)[:colours]
    results = ops.crop_regions(
        pixels, transforms, views, mean=mean, std=std, footprint=footprint, dtype=dtype
    )
    expected = reference.crop_regions(
        pixels, transforms, views, mean=mean, std=std, footprint=footprint, dtype=torch.float32
    )
    assert len(results) == len(views)
    for result, other in zip(results, expected, strict=True):
        assert_near(result, other, CROP)
