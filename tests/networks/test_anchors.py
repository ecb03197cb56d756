"""Anchors, their coding, overlaps and suppression: by hand, and against the plain definition."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import pcnn.networks.boxes
from pcnn.errors import InputError
from pcnn.networks import anchors as anchors_module
from pcnn.networks.anchors import (
    _MOST_KEPT,
    anchor_grid,
    decode_boxes,
    decode_landmarks,
    encode_boxes,
    encode_landmarks,
)
from pcnn.networks.boxes import box_overlaps, nms

VARIANCES = (0.1, 0.2)
# No deadline: the machine that runs the tests may be busy with something else.
UNHURRIED = settings(deadline=None)
# Offsets go through a division, a logarithm and back in float32, on coordinates up to 1,000:
# one part in 10^5 is ten roundings.
ROUND_TRIP = {"rtol": 1e-5, "atol": 1e-2}


def test_anchors_of_a_small_input_worked_by_hand() -> None:
    anchors = anchor_grid(16, 32, min_sizes=[[10, 20], [64]], steps=[8, 16])
    # Level 0: 2 rows × 4 columns × 2 sizes; level 1: 1 × 2 × 1.
    assert anchors.shape == (18, 4)
    assert anchors[0].tolist() == [4, 4, 10, 10]
    assert anchors[1].tolist() == [4, 4, 20, 20]
    assert anchors[2].tolist() == [12, 4, 10, 10]  # columns before rows
    assert anchors[8].tolist() == [4, 12, 10, 10]
    assert anchors[16:].tolist() == [[8, 8, 64, 64], [24, 8, 64, 64]]


def test_a_cell_that_reaches_over_the_edge_still_counts() -> None:
    assert len(anchor_grid(17, 9, min_sizes=[[10]], steps=[8])) == 3 * 2


def test_a_published_input_has_the_known_number_of_anchors() -> None:
    sizes = [[16, 32], [64, 128], [256, 512]]
    # 640 × 640: 2 · (80² + 40² + 20²)
    assert len(anchor_grid(640, 640, min_sizes=sizes, steps=[8, 16, 32])) == 16800


def test_the_last_grids_are_kept_and_no_others() -> None:
    """Pictures of ever other sizes would fill the memory of a GPU."""
    options = {"min_sizes": [[10.0]], "steps": [8]}
    first = anchor_grid(8, 1000, **options)
    assert anchor_grid(8, 1000, **options) is first
    gone = weakref.ref(first)
    del first
    assert gone() is not None
    for width in range(1001, 1001 + _MOST_KEPT):
        anchor_grid(8, width, **options)
    assert gone() is None


def test_a_grid_outlives_the_work_of_every_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that is forgotten may still be read by a GPU, on a stream that did not make it."""
    readers = []
    grid = SimpleNamespace(is_cuda=True, device="cuda:0", record_stream=readers.append)
    monkeypatch.setattr(anchors_module, "_anchor_grid", lambda *_: grid)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"a stream of {device}")
    assert anchor_grid(8, 8, min_sizes=[[10]], steps=[8]) is grid
    assert readers == ["a stream of cuda:0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 0}, "anchor_grid: height and width must be at least 1, got 0 × 32"),
        ({"steps": [8]}, "anchor_grid: min_sizes must have one entry for each step, 1, got"),
        ({"min_sizes": [[10], [-1]]}, "anchor_grid: min_sizes and steps must be positive"),
        ({"steps": [8, 0]}, "anchor_grid: min_sizes and steps must be positive"),
    ],
)
def test_anchor_grid_refuses(arguments: dict[str, object], message: str) -> None:
    good = {"height": 32, "width": 32, "min_sizes": [[10], [20]], "steps": [8, 16]}
    with pytest.raises(InputError, match=message):
        anchor_grid(**{**good, **arguments})  # type: ignore[arg-type]


def test_coding_worked_by_hand() -> None:
    anchor = torch.tensor([[50.0, 60.0, 20.0, 20.0]])
    # Centre 4 right and 2 up of the anchor's, twice as wide, half as high.
    box = torch.tensor([[34.0, 53.0, 74.0, 63.0]])
    offsets = encode_boxes(box, anchor, VARIANCES)
    log2 = 0.6931472
    expected = torch.tensor([[2.0, -1.0, log2 / 0.2, -log2 / 0.2]])
    torch.testing.assert_close(offsets, expected, rtol=1e-6, atol=1e-5)
    points = torch.tensor([[50.0, 60, 52, 60, 50, 66, 40, 60, 50, 50]])
    coded = encode_landmarks(points, anchor, VARIANCES)
    torch.testing.assert_close(coded, torch.tensor([[0.0, 0, 1, 0, 0, 3, -5, 0, 0, -5]]))


def test_absurd_offsets_decode_to_finite_boxes() -> None:
    boxes = decode_boxes(torch.full((1, 4), 1e6), torch.full((1, 4), 9.0), VARIANCES)
    assert torch.isfinite(boxes).all()


def _boxes(generator: torch.Generator, count: int) -> Tensor:
    corner = torch.rand(count, 2, generator=generator) * 900
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 400], dim=1)


@UNHURRIED
@given(seed=st.integers(0, 2**31), count=st.integers(0, 9), batch=st.integers(1, 3))
def test_decoding_undoes_encoding(seed: int, count: int, batch: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(count, 4, generator=generator) * 500 + 5
    boxes = torch.stack([_boxes(generator, count) for _ in range(batch)])
    points = torch.rand(batch, count, 10, generator=generator) * 1000
    coded = encode_boxes(boxes, anchors, VARIANCES)
    torch.testing.assert_close(decode_boxes(coded, anchors, VARIANCES), boxes, **ROUND_TRIP)
    coded = encode_landmarks(points, anchors, VARIANCES)
    torch.testing.assert_close(decode_landmarks(coded, anchors, VARIANCES), points, **ROUND_TRIP)


@pytest.mark.parametrize("code", [encode_boxes, decode_boxes, encode_landmarks, decode_landmarks])
def test_coding_refuses(code) -> None:  # type: ignore[no-untyped-def]
    columns = 4 if code.__name__.endswith("boxes") else 10
    values, anchors = torch.ones(3, columns), torch.ones(3, 4)
    with pytest.raises(InputError, match=rf"{code.__name__}: .* must be \(..., 2, {columns}\)"):
        code(values, anchors[:2], VARIANCES)
    with pytest.raises(InputError, match=rf"{code.__name__}: anchors must be \(any, 4\)"):
        code(values, anchors[:, :3], VARIANCES)
    with pytest.raises(InputError, match=f"{code.__name__}: variances must be two positive"):
        code(values, anchors, (0.1, 0.0))


def test_overlaps_worked_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [4, 4, 4, 9]])
    overlaps = box_overlaps(boxes, boxes[:2])
    # A half of 100 shared by 150; apart; without area.
    expected = torch.tensor([[1, 1 / 3], [1 / 3, 1], [0, 0], [0, 0]])
    torch.testing.assert_close(overlaps, expected)
    assert box_overlaps(boxes[:0], boxes).shape == (0, 4)


def test_suppression_worked_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [40, 40, 50, 50]])
    scores = torch.tensor([0.8, 0.9, 0.7, 0.1])
    # 1 suppresses 0 (9/11) but not 2 (6/14); 3 stands apart.
    assert nms(boxes, scores, iou=0.5).tolist() == [1, 2, 3]
    assert nms(boxes, scores, iou=0.4).tolist() == [1, 3]
    assert nms(boxes, scores, iou=1.0).tolist() == [1, 0, 2, 3]


def test_an_overlap_just_at_the_bound_stays_and_ties_keep_the_first() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 10, 10]])
    # 0 and 1 overlap by exactly a half; 0 and 2 wholly.
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5]), iou=0.5).tolist() == [0, 1]


def test_suppression_of_nothing() -> None:
    kept = nms(torch.empty(0, 4), torch.empty(0), iou=0.5)
    assert kept.tolist() == [] and kept.dtype == torch.int64


def _plain_nms(boxes: Tensor, scores: Tensor, iou: float) -> list[int]:
    """The definition: take the best left, drop what overlaps it."""
    overlaps = box_overlaps(boxes, boxes).tolist()
    left = sorted(range(len(boxes)), key=lambda index: (-float(scores[index]), index))
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        left = [index for index in left if overlaps[best][index] <= iou]
    return kept


@UNHURRIED
@given(seed=st.integers(0, 2**31), count=st.integers(0, 60), iou=st.floats(0, 1))
def test_suppression_is_its_definition(seed: int, count: int, iou: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = _boxes(generator, count)
    # Few different scores, so that ties occur.
    scores = torch.randint(0, 6, (count,), generator=generator) / 5
    assert nms(boxes, scores, iou=iou).tolist() == _plain_nms(boxes, scores, iou)


@pytest.mark.parametrize("block", [1, 3, 40])
def test_suppression_across_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcnn.networks.boxes, "_NMS_BLOCK", block)
    generator = torch.Generator().manual_seed(block)
    boxes, scores = _boxes(generator, 41), torch.rand(41, generator=generator)
    assert nms(boxes, scores, iou=0.1).tolist() == _plain_nms(boxes, scores, 0.1)


def test_suppression_takes_views_that_are_not_contiguous() -> None:
    generator = torch.Generator().manual_seed(5)
    boxes, scores = _boxes(generator, 40), torch.rand(80, generator=generator)[::2]
    strided = boxes.t().contiguous().t()
    assert not strided.is_contiguous()
    assert nms(strided, scores, iou=0.2).tolist() == _plain_nms(boxes, scores, 0.2)


@pytest.mark.parametrize(
    ("boxes", "scores", "iou", "message"),
    [
        (torch.ones(5, 3), torch.ones(5), 0.5, r"nms: boxes must be \(any, 4\), got \(5, 3\)"),
        (torch.ones(5, 4), torch.ones(4), 0.5, r"nms: scores must be \(5\), got \(4,\)"),
        (torch.ones(5, 4).double(), torch.ones(5), 0.5, r"nms: boxes must be float32, got .*64"),
        (torch.ones(5, 4), torch.ones(5).half(), 0.5, r"nms: scores must be float32, got .*16"),
        (
            torch.ones(5, 4),
            torch.ones(5, device="meta"),
            0.5,
            r"nms: boxes and scores must be on one device, got cpu, meta",
        ),
        (torch.ones(5, 4), torch.ones(5), 1.5, r"nms: iou must be 0…1, got 1.5"),
    ],
)
def test_nms_refuses(boxes: Tensor, scores: Tensor, iou: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        nms(boxes, scores, iou=iou)
