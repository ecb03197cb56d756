"""The CUDA kernels against the CPU reference; skips where there is no GPU."""

from __future__ import annotations

import math

import pytest
import torch
from ops import test_decode_faces
from tolerances import CROP, FACES, LANDMARKS, SIZE, STITCH, assert_near, warp
from torch import Tensor

from pcnn import ops
from pcnn.errors import InputError
from pcnn.ops import native, reference

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def native_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that could not be built must not pass as its own reference."""
    monkeypatch.setattr(native, "choice", "native")


def maps(batch: int, channels: int, dtype: torch.dtype, channels_last: bool) -> list[Tensor]:
    """Five regions and the face, on the CPU."""
    generator = torch.Generator().manual_seed(batch + channels)
    sizes = [(7, 7), (7, 7), (3, 7), (3, 7), (5, 14), (14, 14)]
    made = [torch.randn((batch, channels, *size), generator=generator) for size in sizes]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return [item.clamp(-SIZE, SIZE).to(dtype).contiguous(memory_format=layout) for item in made]


def thetas(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.eye(2, 3) + 0.5 * torch.randn((batch, 2, 3), generator=generator)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "channels"), [(0, 8), (1, 1), (2, 5), (3, 256), (70, 24)])
def test_kernels_of_the_interaction(
    batch: int, channels: int, dtype: torch.dtype, channels_last: bool
) -> None:
    *regions, face = maps(batch, channels, dtype, channels_last)
    theta = thetas(batch)
    stitched = ops.stitch_regions([region.cuda() for region in regions], (14, 14)).cpu()
    expected = reference.stitch_regions([region.float() for region in regions], (14, 14))
    assert_near(stitched, expected, STITCH)
    fused = ops.warp_add(stitched.cuda(), theta.cuda(), face.cuda()).cpu()
    expected = reference.warp_add(stitched.float(), theta, face.float())
    assert_near(fused, expected, warp(theta, 14))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_of_unaligned_maps(dtype: torch.dtype) -> None:
    *_, face = maps(2, 33, dtype, True)
    memory = torch.empty(2, 15, 14, 40, dtype=dtype, device="cuda").fill_(math.nan)
    place = memory[:, 1:, :, 7:].permute(0, 3, 1, 2)  # starts off a 16-byte address
    place.copy_(face)
    fused = ops.warp_add(place, thetas(2).cuda(), place).cpu()
    assert_near(
        fused, reference.warp_add(face.float(), thetas(2), face.float()), warp(thetas(2), 14)
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e20])
@pytest.mark.parametrize("place", range(6))
def test_kernels_with_degenerate_theta(bad: float, place: int) -> None:
    *_, face = maps(1, 8, torch.float32, True)
    theta = torch.eye(2, 3)[None].clone()
    theta.view(-1)[place] = bad
    fused = ops.warp_add(face.cuda(), theta.cuda(), face.cuda()).cpu()
    assert_near(fused, reference.warp_add(face, theta, face), 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("scale", [1 / 40, 0.9, 3.3, 10.0, math.nan, 3e38])
def test_kernels_of_crop_regions(scale: float, grey: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    image = torch.randint(0, 256, (211, 307, 3), dtype=torch.uint8, generator=generator)
    sizes = [(1 + 7 * index % 40, 1 + 5 * index % 33) for index in range(20)]
    transforms = torch.tensor([[0.9, 0.3, 20.0], [-0.2, 1.0, 30.0]]).repeat(5, 20, 1, 1)
    transforms[..., :2] *= scale
    channels = 1 if grey else 3
    options = {"mean": (0.4, 0.5, 0.6)[:channels], "std": (0.2, 0.3, 0.25)[:channels]}
    views = ops.crop_regions(image.cuda(), transforms.cuda(), sizes, **options, dtype=dtype)
    expected = reference.crop_regions(
        image, transforms, sizes, **options, footprint=1.0, dtype=torch.float32
    )
    for view, other in zip(views, expected, strict=True):
        assert_near(view.cpu(), other, CROP)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("scale", [1 / 40, 0.9, 3.3, 10.0, math.nan])
def test_kernels_of_landmark_crop(scale: float, grey: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    image = torch.randint(0, 256, (211, 307, 3), dtype=torch.uint8, generator=generator)
    template = [(13.0, 15.0), (27.0, 15.0), (20.0, 24.0), (14.0, 30.0), (26.0, 30.0)]
    boxes = [(i % 5, i % 7 - 3, i % 5 + 1 + 7 * i % 40, i % 7 + 5 * i % 33) for i in range(20)]
    landmarks = scale * (torch.tensor(template) + torch.randn(5, 5, 2, generator=generator))
    channels = 1 if grey else 3
    options = {"mean": (0.4, 0.5, 0.6)[:channels], "std": (0.2, 0.3, 0.25)[:channels]}
    options |= {"footprint": 1.5, "mirror": True}
    given = image.cuda(), landmarks.cuda(), template, boxes
    views = ops.landmark_crop(*given, **options, dtype=dtype)
    expected = reference.landmark_crop(
        image, landmarks, template, boxes, **options, dtype=torch.float32
    )
    for view, other in zip(views, expected, strict=True):
        assert_near(view.cpu(), other, LANDMARKS)


@pytest.mark.parametrize(
    ("batch", "count", "most", "spread"),
    [
        (0, 50, 9, 9.0),
        (1, 0, 9, 9.0),
        (1, 12600, 2000, 600.0),
        (3, 12600, 100, 90.0),
        (17, 65, 64, 9),
        (2, 40_000, 2000, 900.0),  # more candidates than are ranked together
    ],
)
def test_kernels_of_decode_faces(batch: int, count: int, most: int, spread: float) -> None:
    predictions, anchors = test_decode_faces.random_case(batch, count, 7, spread)
    predictions[..., 0] -= 3.0 if batch == 1 else 0.0
    options = {"variances": (0.1, 0.2), "min_score": 0.4, "iou": 0.4, "most": most}
    options |= {"hint_score": 0.3, "hint_side": 70.0}
    for given in (predictions, predictions.transpose(0, 1).contiguous().transpose(0, 1)):
        found = ops.decode_faces(given.cuda(), anchors.cuda(), **options).cpu()
        expected = ops.decode_faces(predictions, anchors, **options)  # by the CPU code
        assert torch.equal(found[:, 0], expected[:, 0])
        torch.testing.assert_close(found, expected, rtol=FACES, atol=0)
    assert not batch * count or expected[:, 0, 0].min() > 1


def test_decode_faces_waits_for_nothing_and_can_be_captured() -> None:
    predictions, anchors = (one.cuda() for one in test_decode_faces.random_case(2, 500, 3, 400.0))
    options = {"variances": (0.1, 0.2), "min_score": 0.4, "iou": 0.4, "most": 300}
    expected = ops.decode_faces(predictions, anchors, **options)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # a wait would break it off
        found = ops.decode_faces(predictions, anchors, **options)
    found.fill_(math.nan)
    for _ in range(2):  # the counters begin at zero again
        graph.replay()
        assert torch.equal(found, expected)


def test_captured_in_a_graph() -> None:
    *regions, face = [item.cuda() for item in maps(2, 64, torch.float32, True)]
    theta = thetas(2).cuda()

    def fuse() -> Tensor:
        return ops.warp_add(ops.stitch_regions(regions, (14, 14)), theta, face)

    expected = fuse()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fused = fuse()
    fused.fill_(math.nan)
    graph.replay()
    torch.testing.assert_close(fused, expected)
    theta.mul_(0.5)  # the same memory, new values: a replay computes anew
    graph.replay()
    torch.testing.assert_close(fused, fuse())


def test_on_the_callers_stream_without_waiting() -> None:
    *regions, _ = [item.cuda() for item in maps(64, 256, torch.float32, True)]
    expected = ops.stitch_regions(regions, (14, 14))
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # clock cycles: the op must queue behind them
        stitched = ops.stitch_regions(regions, (14, 14))
        assert not stream.query()
    torch.cuda.synchronize()
    torch.testing.assert_close(stitched, expected)


def test_mixed_devices_are_refused() -> None:
    *_, face = maps(1, 8, torch.float32, True)
    with pytest.raises(InputError, match="warp_add: theta must be on cuda:0, got cpu"):
        ops.warp_add(face.cuda(), thetas(1), face.cuda())


def test_opcheck() -> None:
    *regions, face = [item.cuda() for item in maps(2, 8, torch.float32, True)]
    torch.library.opcheck(torch.ops.pcnn.stitch_regions.default, (*regions, 14, 14))
    torch.library.opcheck(torch.ops.pcnn.warp_add.default, (face, thetas(2).cuda(), face))
