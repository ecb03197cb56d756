"""stitch_regions and warp_add: by hand, on the paper's own case, and against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import GRADIENT, SIZE, STITCH, assert_near, warp
from torch import Tensor

from pcnn import ops
from pcnn.ops import reference

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
LAYOUTS = ["contiguous", "channels_last", "sliced", "offset", "mixed"]


def random_map(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    seed: int = 1,
) -> Tensor:
    """Values of -SIZE … SIZE, the extremes planted, in one of LAYOUTS."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator).clamp(-SIZE, SIZE)
    if values.numel():
        values.view(-1)[0], values.view(-1)[-1] = SIZE, -SIZE
    values = values.to(dtype)
    if layout == "mixed":
        layout = LAYOUTS[seed % 2]
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        memory = torch.full((batch, 2 * channels, height, 3 * width), math.nan, dtype=dtype)
        place = memory[:, ::2, :, 1::3]
    elif layout == "offset":
        memory = torch.full((batch, height + 1, width + 2, channels + 3), math.nan, dtype=dtype)
        place = memory[:, 1:, 2:, 3:].permute(0, 3, 1, 2)
    else:
        return values
    return place.copy_(values)


def region_maps(  # noqa: PLR0913, PLR0917
    batch: int,
    channels: int,
    pairs: tuple[int, int, int, int],
    mouth: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    wider: tuple[int, int] = (0, 0),
) -> list[Tensor]:
    """pairs: heights and widths of an eye and of a cheek. wider: by how much the right ones are."""
    (eye_height, eye), (cheek_height, cheek) = pairs[:2], pairs[2:]
    eyes = [(eye_height, eye), (eye_height, eye + wider[0])]
    cheeks = [(cheek_height, cheek), (cheek_height, cheek + wider[1])]
    sizes = (*eyes, *cheeks, mouth)
    return [
        random_map((batch, channels, *size), dtype, layout, seed) for seed, size in enumerate(sizes)
    ]


# By hand.


@pytest.mark.usefixtures("implementation")
def test_maps_that_fit_are_only_laid_out() -> None:
    left_eye, right_eye, left_cheek, right_cheek = (
        torch.full((1, 1, 1, 1), value) for value in (1.0, 2.0, 3.0, 4.0)
    )
    mouth = torch.tensor([[[[5.0, 6.0]]]])
    stitched = ops.stitch_regions([left_eye, right_eye, left_cheek, right_cheek, mouth], (3, 2))
    assert stitched.tolist() == [[[[1, 2], [3, 4], [5, 6]]]]


@pytest.mark.usefixtures("implementation")
def test_a_pair_is_widened_and_the_stack_heightened() -> None:
    # Eyes 1 2 → 1 1.5 2 at width 3, cheeks 3 5 → 3 4 5. Three rows become five: every second new
    # row is the mean of its neighbours.
    maps = [torch.tensor([[[[value]]]]) for value in (1.0, 2.0, 3.0, 5.0)]
    mouth = torch.tensor([[[[7.0, 8.0, 11.0]]]])
    stitched = ops.stitch_regions([*maps, mouth], (5, 3))
    expected = [[1, 1.5, 2], [2, 2.75, 3.5], [3, 4, 5], [5, 6, 8], [7, 8, 11]]
    assert stitched[0, 0].tolist() == expected


@pytest.mark.usefixtures("implementation")
def test_the_members_of_a_pair_may_differ_in_width() -> None:
    # Eyes 1 | 2 3 lie side by side as they are; cheeks 4 6 | 8 lose nothing either.
    eyes = [torch.tensor([[[[1.0]]]]), torch.tensor([[[[2.0, 3.0]]]])]
    cheeks = [torch.tensor([[[[4.0, 6.0]]]]), torch.tensor([[[[8.0]]]])]
    mouth = torch.tensor([[[[7.0, 8.0, 11.0]]]])
    stitched = ops.stitch_regions([*eyes, *cheeks, mouth], (3, 3))
    assert stitched[0, 0].tolist() == [[1, 2, 3], [4, 6, 8], [7, 8, 11]]


@pytest.mark.usefixtures("implementation")
def test_one_row_of_output_takes_the_first() -> None:
    maps = [torch.tensor([[[[value]]]]) for value in (1.0, 2.0, 3.0, 5.0)]
    stitched = ops.stitch_regions([*maps, torch.tensor([[[[7.0, 8.0, 11.0]]]])], (1, 3))
    assert stitched[0, 0].tolist() == [[1, 1.5, 2]]


@pytest.mark.usefixtures("implementation")
def test_identity_adds() -> None:
    stitched, face = random_map((2, 3, 4, 5)), random_map((2, 3, 4, 5), seed=2)
    fused = ops.warp_add(stitched, torch.eye(2, 3).repeat(2, 1, 1), face)
    torch.testing.assert_close(fused, stitched + face, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("implementation")
def test_a_shift_of_a_pixel_and_a_half() -> None:
    # Width 5: a pixel is 2 / 4 = 0.5 of the normalised width, so 0.75 shifts by a pixel and a half.
    stitched = torch.tensor([[[[1.0, 2.0, 4.0, 8.0, 16.0]]]])
    face = torch.full((1, 1, 1, 5), 100.0)
    theta = torch.tensor([[[1.0, 0.0, 0.75], [0.0, 1.0, 0.0]]])
    expected = [[103.0, 106.0, 112.0, 108.0, 100.0]]
    assert ops.warp_add(stitched, theta, face)[0, 0].tolist() == expected


@pytest.mark.usefixtures("implementation")
def test_a_quarter_turn() -> None:
    stitched = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    theta = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])  # reads (x, y) at (-y, x)
    fused = ops.warp_add(stitched, theta, torch.full((1, 1, 2, 2), 10.0))
    assert fused[0, 0].tolist() == [[12, 14], [11, 13]]


@pytest.mark.usefixtures("implementation")
def test_an_infinite_value_stays_where_it_is() -> None:
    stitched = torch.zeros(1, 1, 3, 3) + 2
    stitched[0, 0, 0, 0] = math.inf
    theta = torch.tensor([[[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]])  # wholly outside
    fused = ops.warp_add(stitched, theta, torch.ones(1, 1, 3, 3))
    assert fused.tolist() == torch.ones(1, 1, 3, 3).tolist()


@pytest.mark.usefixtures("implementation")
def test_the_papers_case() -> None:
    """S = 224: 7×7, 7×7, 3×7, 3×7, 5×14 → 14×14, by the definition spelt out in float64."""
    regions = region_maps(2, 256, (7, 7, 3, 7), (5, 14), layout="channels_last")
    stitched = ops.stitch_regions(regions, (14, 14))
    left_eye, right_eye, left_cheek, right_cheek, mouth = (region.double() for region in regions)
    eyes = torch.cat((left_eye, right_eye), 3)  # 7 × 14: as wide as the face, as are the cheeks
    cheeks = torch.cat((left_cheek, right_cheek), 3)  # 3 × 14
    stack = torch.cat((eyes, cheeks, mouth), 2)  # 15 × 14
    expected = torch.empty(2, 256, 14, 14, dtype=torch.float64)
    for row in range(14):
        position = row * 14 / 13
        first = min(int(position), 13)
        share = position - first
        expected[:, :, row] = (1 - share) * stack[:, :, first] + share * stack[:, :, first + 1]
    torch.testing.assert_close(stitched.double(), expected, atol=STITCH, rtol=0)
    face = random_map((2, 256, 14, 14), layout="channels_last", seed=9)
    fused = ops.warp_add(stitched, torch.eye(2, 3).repeat(2, 1, 1), face)
    torch.testing.assert_close(fused, face + stitched, atol=1e-4, rtol=0)
    assert fused.is_contiguous(memory_format=torch.channels_last)


# Against the reference.


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_and_dtype(dtype: torch.dtype, layout: str) -> None:
    for channels in (1, 5, 67):
        regions = region_maps(3, channels, (3, 4, 2, 3), (4, 9), dtype, layout)
        stitched = ops.stitch_regions(regions, (11, 9))
        expected = reference.stitch_regions([region.float() for region in regions], (11, 9))
        assert_near(stitched, expected, STITCH)
        face = random_map((3, channels, 11, 9), dtype, layout, seed=7)
        theta = torch.eye(2, 3) + torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(8))
        fused = ops.warp_add(stitched, theta, face)
        expected = reference.warp_add(stitched.float(), theta, face.float())
        assert_near(fused, expected, warp(theta, 11))


@pytest.mark.parametrize("channels_last", [False, True])
def test_results_are_laid_out_like_the_maps(channels_last: bool) -> None:
    layout = "channels_last" if channels_last else "contiguous"
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    regions = region_maps(2, 6, (3, 4, 2, 3), (4, 8), layout=layout)
    stitched = ops.stitch_regions(regions, (9, 8))
    fused = ops.warp_add(stitched, torch.ones(2, 2, 3), stitched)
    assert stitched.is_contiguous(memory_format=memory_format)
    assert fused.is_contiguous(memory_format=memory_format)


@pytest.mark.usefixtures("implementation")
def test_an_empty_batch_gives_an_empty_map() -> None:
    stitched = ops.stitch_regions(region_maps(0, 4, (3, 3, 1, 3), (3, 6)), (6, 6))
    assert stitched.shape == (0, 4, 6, 6)
    assert ops.warp_add(stitched, torch.ones(0, 2, 3), stitched).shape == (0, 4, 6, 6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e20, -1e38])
@pytest.mark.parametrize("place", range(6))
def test_degenerate_theta(bad: float, place: int) -> None:
    theta = torch.eye(2, 3)[None].clone()
    theta.view(-1)[place] = bad
    for side in (1, 3, 6):
        stitched = random_map((1, 40, side, side), layout="channels_last")
        face = random_map((1, 40, side, side), seed=2)
        fused = ops.warp_add(stitched, theta, face)
        expected = reference.warp_add(stitched, theta, face)
        if math.isfinite(bad):
            # Exactly on the middle line such a map stays finite and may land anywhere inside.
            assert bool(fused.isfinite().all())
            assert_near(fused, expected, warp(theta, side))
        else:
            assert_near(fused, expected, 1e-5)


def test_every_element_is_written() -> None:
    """Memory that comes back from the allocator full of NaN must not show."""
    for _ in range(5):
        torch.full((2, 64, 14, 14), math.nan)  # freed at once, taken again below
        stitched = ops.stitch_regions(region_maps(2, 64, (7, 7, 3, 7), (5, 14)), (14, 14))
        torch.full((2, 64, 14, 14), math.nan)
        assert bool(ops.warp_add(stitched, torch.ones(2, 2, 3), stitched).isfinite().all())


def test_threads_change_nothing() -> None:
    regions = region_maps(16, 256, (7, 7, 3, 7), (5, 14), layout="channels_last")
    face = random_map((16, 256, 14, 14), layout="channels_last", seed=4)
    theta = torch.eye(2, 3).repeat(16, 1, 1) * torch.linspace(0.5, 2, 16)[:, None, None]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            results.append(ops.warp_add(ops.stitch_regions(regions, (14, 14)), theta, face))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


small = st.integers(1, 9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    channels=st.one_of(st.integers(1, 70), st.sampled_from([128, 256, 300])),
    pairs=st.tuples(small, small, small, small),
    wider=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    mouth_height=small,
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
)
@example(1, 1, (1, 1, 1, 1), (0, 0), 1, (1, 1), "contiguous", torch.float32)
@example(1, 3, (1, 300, 2, 1), (1, 0), 1, (300, 299), "channels_last", torch.float32)
@example(2, 2, (97, 2, 101, 3), (0, 2), 103, (300, 7), "contiguous", torch.float16)
def test_stitch_equals_reference(  # noqa: PLR0913, PLR0917
    batch: int,
    channels: int,
    pairs: tuple[int, int, int, int],
    wider: tuple[int, int],
    mouth_height: int,
    size: tuple[int, int],
    layout: str,
    dtype: torch.dtype,
) -> None:
    regions = region_maps(batch, channels, pairs, (mouth_height, size[1]), dtype, layout, wider)
    stitched = ops.stitch_regions(regions, size)
    expected = reference.stitch_regions([region.float() for region in regions], size)
    assert_near(stitched, expected, STITCH)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    channels=st.one_of(st.integers(1, 70), st.sampled_from([128, 256, 300])),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    theta=st.lists(
        st.one_of(st.floats(-2, 2, width=32), st.floats(-1e6, 1e6, width=32)),
        min_size=6,
        max_size=6,
    ),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from(DTYPES),
)
@example(1, 2, (300, 299), [0.3, 0.7, 0.1, -0.9, 0.2, 0.0], "contiguous", torch.float32)
@example(2, 33, (1, 1), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "channels_last", torch.bfloat16)
@example(1, 40, (5, 1), [0.0] * 6, "channels_last", torch.float16)
def test_warp_add_equals_reference(  # noqa: PLR0913, PLR0917
    batch: int,
    channels: int,
    size: tuple[int, int],
    theta: list[float],
    layout: str,
    dtype: torch.dtype,
) -> None:
    stitched = random_map((batch, channels, *size), dtype, layout)
    face = random_map((batch, channels, *size), dtype, layout, seed=2)
    thetas = torch.tensor(theta).view(1, 2, 3).repeat(batch, 1, 1)
    thetas *= 1 + torch.arange(batch).view(-1, 1, 1) / 5
    fused = ops.warp_add(stitched, thetas, face)
    expected = reference.warp_add(stitched.float(), thetas, face.float())
    assert_near(fused, expected, warp(thetas, max(size)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_are_the_references(layout: str, dtype: torch.dtype) -> None:
    inputs = region_maps(2, 4, (3, 4, 2, 3), (4, 9), dtype, layout)
    inputs.append(random_map((2, 4, 11, 9), dtype, layout, seed=7))
    theta = torch.eye(2, 3, dtype=dtype) + 0.3 * torch.randn(
        2, 2, 3, dtype=dtype, generator=torch.Generator().manual_seed(5)
    )
    weights = random_map((2, 4, 11, 9), dtype, seed=6)
    gradients = []
    for module in (ops, reference):
        leaves = [tensor.clone().requires_grad_() for tensor in (*inputs, theta)]
        stitched = module.stitch_regions(leaves[:5], (11, 9))
        # The same point for both, so that the gradients can be held to equality.
        stitched = stitched + (reference.stitch_regions(inputs[:5], (11, 9)) - stitched).detach()
        fused = module.warp_add(stitched, leaves[6], leaves[5])
        gradients.append(torch.autograd.grad((fused * weights).sum(), leaves))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=GRADIENT, rtol=1e-6 if GRADIENT else 0)


def test_gradcheck() -> None:
    regions = region_maps(1, 2, (2, 2, 1, 2), (2, 4), torch.float64)
    face = random_map((1, 2, 4, 4), torch.float64, seed=7)
    theta = torch.tensor([[[0.81, 0.13, 0.07], [-0.11, 0.77, 0.05]]], dtype=torch.float64)

    def fuse(theta: Tensor, face: Tensor, *regions: Tensor) -> Tensor:
        return ops.warp_add(ops.stitch_regions(regions, (4, 4)), theta, face)

    inputs = [tensor.requires_grad_() for tensor in (theta, face, *regions)]
    assert torch.autograd.gradcheck(fuse, inputs)
