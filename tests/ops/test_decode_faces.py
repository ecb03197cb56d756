"""decode_faces: examples worked by hand, and the compiled op against the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import FACES
from torch import Tensor

from pcnn import ops
from pcnn.networks.anchors import decode_boxes, decode_landmarks
from pcnn.networks.boxes import nms
from pcnn.ops import reference

VARIANCES = (0.1, 0.2)
OPTIONS: dict[str, Any] = {"variances": VARIANCES, "min_score": 0.5, "iou": 0.4, "most": 9}

pytestmark = pytest.mark.usefixtures("implementation")  # every test here runs with both


def logit(score: float) -> float:
    return math.log(score / (1 - score))


def predictions_of(*scores: float) -> Tensor:
    """(1, N, 15): boxes at their anchors, landmarks as far from the centre as their number."""
    found = torch.zeros(1, len(scores), 15)
    found[0, :, 0] = torch.tensor([logit(score) for score in scores])
    found[0, :, 5:] = torch.arange(1.0, 11)
    return found


def anchors_at(*columns: float, side: float = 10.0) -> Tensor:
    """(N, 4): squares in one row of the image, at y = 50."""
    return torch.tensor([[x, 50.0, side, side] for x in columns])


def scores_of(found: Tensor) -> list[float]:
    """The faces' scores of one image; all other rows must be zeros."""
    count = int(found[0, 0])
    assert not found[0, 2:].any() and not found[1 + count :].any()
    return [round(score, 4) for score in found[1 : 1 + count, 0].tolist()]


def random_case(batch: int, count: int, seed: int, spread: float) -> tuple[Tensor, Tensor]:
    """Predictions and anchors; the larger the spread, the fewer overlaps."""
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(batch, count, 15, generator=generator)
    predictions[..., 0] *= 3
    anchors = 40 + spread * torch.rand(count, 4, generator=generator)
    anchors[:, 2:] = 16.0 * torch.randint(1, 5, (count, 1), generator=generator)
    return predictions, anchors


def test_a_face_by_hand() -> None:
    """The offsets are in anchor sides, times the variances; sizes are exponents."""
    predictions = torch.zeros(1, 1, 15)
    predictions[0, 0] = torch.tensor([logit(0.8), 5, -10, math.log(4) / 0.2, 0, *range(10)])
    anchors = torch.tensor([[100.0, 60.0, 16.0, 8.0]])
    (found,) = ops.decode_faces(predictions, anchors, **OPTIONS)
    assert found.shape == (10, 15) and scores_of(found) == [0.8]
    # The centre moves by 0.5 · 16 and -1 · 8 pixels; the width is four times the anchor's.
    box = torch.tensor([108 - 32.0, 52 - 4.0, 108 + 32.0, 52 + 4.0])
    torch.testing.assert_close(found[1, 1:5], box, atol=1e-4, rtol=0)
    points = [[100 + 16 * 0.1 * x, 60 + 8 * 0.1 * (x + 1)] for x in range(0, 10, 2)]
    torch.testing.assert_close(found[1, 5:].view(5, 2), torch.tensor(points), atol=1e-4, rtol=0)


def test_the_better_of_two_that_overlap() -> None:
    """Squares of 10 pixels, 4 apart, share 6 of 14 columns: 0.4286."""
    found = ops.decode_faces(predictions_of(0.8, 0.9), anchors_at(20, 24), **OPTIONS)[0]
    assert scores_of(found) == [0.9] and found[1, 1] == 19
    found = ops.decode_faces(
        predictions_of(0.8, 0.9), anchors_at(20, 24), **(OPTIONS | {"iou": 0.43})
    )[0]
    assert scores_of(found) == [0.9, 0.8]


def test_what_is_suppressed_suppresses_nothing() -> None:
    found = ops.decode_faces(predictions_of(0.9, 0.8, 0.7), anchors_at(20, 24, 28), **OPTIONS)[0]
    assert scores_of(found) == [0.9, 0.7]


def test_overlap_of_exactly_the_limit_is_kept() -> None:
    """A box of 6 columns within one of 12: half of the union is shared."""
    anchors = torch.tensor([[20.0, 50, 12, 12], [17.0, 50, 6, 12]])
    for iou, scores in ((0.5, [0.9, 0.8]), (0.499, [0.9])):
        found = ops.decode_faces(predictions_of(0.9, 0.8), anchors, **(OPTIONS | {"iou": iou}))[0]
        assert scores_of(found) == scores


def test_ties_keep_the_order_of_the_anchors() -> None:
    found = ops.decode_faces(predictions_of(0.7, 0.9, 0.7), anchors_at(20, 50, 80), **OPTIONS)[0]
    assert scores_of(found) == [0.9, 0.7, 0.7]
    assert found[1:4, 1].tolist() == [45, 15, 75]
    found = ops.decode_faces(predictions_of(0.7, 0.7), anchors_at(24, 20), **OPTIONS)[0]
    assert found[1, 1] == 19 and found[0, 0] == 1


def test_a_score_of_exactly_the_least_is_a_face() -> None:
    found = ops.decode_faces(predictions_of(0.5, 0.499), anchors_at(20, 80), **OPTIONS)[0]
    assert scores_of(found) == [0.5]


def test_only_the_best_candidates_are_compared() -> None:
    """The second best overlaps the best; the third is not looked at."""
    given = predictions_of(0.7, 0.9, 0.8), anchors_at(80, 20, 22)
    for most, scores in ((2, [0.9]), (3, [0.9, 0.7]), (1, [0.9])):
        found = ops.decode_faces(*given, **(OPTIONS | {"most": most}))[0]
        assert found.shape == (1 + most, 15) and scores_of(found) == scores


@pytest.mark.parametrize(
    ("hint_score", "hint_side", "large"),
    [(0.3, 12.0, 1), (0.3, 12.1, 0), (0.45, 12.0, 0), (1.0, 9.0, 1), (0.3, math.inf, 0)],
)
def test_a_large_candidate_need_not_be_a_face(
    hint_score: float, hint_side: float, large: int
) -> None:
    """The shorter side counts; faces count whatever hint_score is."""
    anchors = torch.tensor([[20.0, 50, 30, 12], [90.0, 50, 10, 10]])
    found = ops.decode_faces(
        predictions_of(0.4, 0.9), anchors, hint_score=hint_score, hint_side=hint_side, **OPTIONS
    )[0]
    assert found[0, :2].tolist() == [1, large]


def test_a_suppressed_candidate_may_be_large() -> None:
    anchors = torch.tensor([[20.0, 50, 10, 10], [20.0, 50, 12, 12]])
    found = ops.decode_faces(predictions_of(0.9, 0.8), anchors, hint_side=12.0, **OPTIONS)[0]
    assert found[0, :2].tolist() == [1, 1]


def test_no_anchors_no_images_no_faces() -> None:
    predictions, anchors = predictions_of(0.9, 0.8), anchors_at(20, 24)
    assert ops.decode_faces(predictions[:0], anchors, **OPTIONS).shape == (0, 10, 15)
    for few in ((predictions[:, :0], anchors[:0]), (predictions_of(0.2), anchors[:1])):
        found = ops.decode_faces(*few, **OPTIONS)
        assert found.shape == (1, 10, 15) and not found.any()


def test_numbers_that_are_not_finite() -> None:
    """A NaN logit is no face; a box with NaN overlaps none; infinite logits are certain."""
    predictions = predictions_of(0.6, 0.7, 0.8, 0.9, 0.6)
    predictions[0, :, 0] = torch.tensor([math.nan, logit(0.7), math.inf, -math.inf, logit(0.6)])
    predictions[0, 1, 2] = math.nan
    predictions[0, 4, 3] = math.inf  # the exponent's limit: the box has all others in it
    found = ops.decode_faces(predictions, anchors_at(*[20.0] * 5), hint_side=11, **OPTIONS)[0]
    assert scores_of(found) == [1.0, 0.7, 0.6]
    assert found[2, 2].isnan() and found[3, 3] > 1e6 and found[0, 1] == 0
    everything = ops.decode_faces(
        predictions, anchors_at(*range(20, 520, 100)), **(OPTIONS | {"min_score": 0.0})
    )[0]
    assert scores_of(everything) == [1.0, 0.7, 0.6, 0.0]


def test_images_of_a_batch_do_not_meet() -> None:
    predictions, anchors = random_case(5, 300, 2, 200.0)
    options = OPTIONS | {"most": 200, "hint_side": 70.0}
    found = ops.decode_faces(predictions, anchors, **options)
    assert len(set(found[:, 0, 0].tolist())) > 1 and found[:, 0, 0].min() > 1
    for image, own in zip(found, predictions, strict=True):
        assert torch.equal(image, ops.decode_faces(own[None], anchors, **options)[0])


def test_predictions_of_any_memory_layout() -> None:
    predictions, anchors = random_case(2, 100, 3, 300.0)
    options = OPTIONS | {"most": 50}
    expected = ops.decode_faces(predictions, anchors, **options)
    padded = torch.full((3, 120, 17), math.nan)
    padded[1:, 9:109, 1:16] = predictions
    every_second = predictions.repeat_interleave(2, 1)[:, ::2]
    backwards = predictions.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for layout in (padded[1:, 9:109, 1:16], every_second, backwards):
        assert torch.equal(ops.decode_faces(layout, anchors, **options), expected)
    columns = anchors.t().contiguous().t()
    assert torch.equal(ops.decode_faces(predictions, columns, **options), expected)


def test_the_same_as_the_parts_of_the_package() -> None:
    """networks.anchors decodes in float32 alone, so that last places may differ."""
    predictions, anchors = random_case(1, 400, 4, 150.0)
    (found,) = ops.decode_faces(predictions, anchors, **(OPTIONS | {"most": 400}))
    scores = predictions[0, :, 0].sigmoid()
    sure = scores >= 0.5
    boxes = decode_boxes(predictions[0, sure, 1:5], anchors[sure], VARIANCES)
    points = decode_landmarks(predictions[0, sure, 5:], anchors[sure], VARIANCES)
    kept = nms(boxes, scores[sure], iou=0.4)
    expected = torch.cat((scores[sure][kept, None], boxes[kept], points[kept]), 1)
    assert 20 < len(kept) < sure.sum()
    torch.testing.assert_close(found[1 : 1 + int(found[0, 0])], expected, rtol=1e-6, atol=1e-6)


def test_no_gradient() -> None:
    given = predictions_of(0.9).requires_grad_(), anchors_at(20).requires_grad_()
    assert not ops.decode_faces(*given, **OPTIONS).requires_grad


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(0, 3),
    count=st.one_of(st.sampled_from([0, 1, 2, 63, 64, 65, 129]), st.integers(0, 700)),
    most=st.one_of(st.sampled_from([1, 63, 64, 65, 2048]), st.integers(1, 300)),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 30.0, 300.0, 5000.0]),
    min_score=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    iou=st.sampled_from([0.0, 0.4, 1.0]),
    hint=st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 60.0, math.inf])),
    bad=st.sampled_from([None, math.nan, math.inf, -math.inf, 3e38]),
    tied=st.booleans(),
)
@example(2, 700, 2048, 1, 5000.0, 0.0, 0.4, (0.3, 60.0), None, True)
@example(1, 700, 300, 1, 30.0, 0.3, 0.4, (0.3, 60.0), math.nan, False)
def test_native_equals_reference_of_faces(  # noqa: PLR0913, PLR0917
    batch: int,
    count: int,
    most: int,
    seed: int,
    spread: float,
    min_score: float,
    iou: float,
    hint: tuple[float, float],
    bad: float | None,
    tied: bool,
) -> None:
    predictions, anchors = random_case(batch, count, seed, spread)
    if tied:
        predictions[..., 0] = predictions[..., 0].round()
        predictions[:, ::3, 1:5] = 0  # the boxes of many are those of their anchors
    if bad is not None:
        predictions.view(-1)[seed % 7 :: 31] = bad
    options = {"variances": VARIANCES, "min_score": min_score, "iou": iou, "most": most}
    options |= {"hint_score": hint[0], "hint_side": hint[1]}
    found = ops.decode_faces(predictions, anchors, **options)
    limits = ops._logit(min(hint[0], min_score)), min_score, iou, hint[1]
    expected = reference.decode_faces(predictions, anchors, VARIANCES, limits, most)
    assert torch.equal(found[:, 0], expected[:, 0])
    torch.testing.assert_close(found, expected, rtol=FACES, atol=0, equal_nan=True)
