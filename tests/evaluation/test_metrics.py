import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcnn.evaluation.metrics import (
    accuracy,
    brier_scores,
    calibration_error,
    cautious_temperature,
    fit_temperature,
    reliability,
    risks,
)


def test_accuracy_by_hand() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 2], [0, 3, 1], [1, 0, 0]])
    votes = torch.tensor([[0.9, 0.1, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0.2, 0.8]])
    # Right, wrong (a tie goes to the first class), right, wrong.
    assert accuracy(logits, votes) == 0.5


@given(st.floats(0.2, 5))
@settings(deadline=None, max_examples=20)
def test_temperature_undoes_overconfidence(factor: float) -> None:
    """Labels drawn as often as the logits' own softmax says: T of the scaled logits is the scale.

    Two classes, logits (ln 3, 0): 3 of 4 faces belong to the first.
    """
    logits = torch.tensor([[math.log(3), 0.0]]).repeat(8, 1) * factor
    votes = torch.eye(2)[torch.tensor([0, 0, 0, 1, 0, 0, 0, 1])]
    assert fit_temperature(logits, votes) == pytest.approx(factor, rel=1e-3)


def test_calibration_error_by_hand() -> None:
    """Confidences 0.9, 0.9 (one right) and 0.6 (right): (|1 − 1.8| + |1 − 0.6|) / 3 = 0.4."""
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = torch.tensor([0, 1, 1])
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx(0.4, abs=1e-6)
    sure = torch.tensor([[1.0, 0.0]])
    assert calibration_error(sure, torch.tensor([0])) == 0


def test_reliability_by_hand() -> None:
    """Quarters: 0.5 opens the third; two faces in the last, to which its upper edge belongs."""
    probabilities = torch.tensor([[0.5, 0.5], [0.125, 0.875], [0.375, 0.625], [1.0, 0.0]])
    faces, confidence, right = reliability(probabilities, torch.tensor([0, 0, 1, 0]), bins=4)
    assert faces.tolist() == [0, 0, 2, 2]
    assert confidence.tolist() == [0, 0, 0.5 + 0.625, 0.875 + 1]
    assert right.tolist() == [0, 0, 2, 1]


def test_brier_scores_by_hand() -> None:
    """Sure and right: 0; sure and wrong: 1 + 1; (0.6, 0.4) for the second: 0.36 + 0.36."""
    probabilities = torch.tensor([[1, 0], [1, 0], [0.6, 0.4]], dtype=torch.float64)
    found = brier_scores(probabilities, torch.tensor([0, 1, 1]))
    assert found.tolist() == pytest.approx([0, 2, 0.72])


def test_risks_by_hand() -> None:
    """From the surest: wrong, right, right (the first of two alike), wrong."""
    probabilities = torch.tensor([[0.75, 0.25], [0.125, 0.875], [0.75, 0.25], [0.0, 1.0]])
    found = risks(probabilities, torch.tensor([0, 1, 1, 0]))
    assert found.tolist() == [1, 1 / 2, 1 / 3, 2 / 4]


def test_few_faces_do_not_make_a_network_certain() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 2.0]]).repeat(100, 1)
    votes = torch.eye(3).repeat(100, 1)
    for count, least in ((3, 0.6), (30, 0.9)):
        temperature = cautious_temperature(logits[:count], votes[:count])
        sure = (logits[:count] / temperature).softmax(1).max(1).values.mean()
        # All are right: what they tell is a share of (N + 1) / (N + K).
        assert sure == pytest.approx((count + 1) / (count + 3), abs=0.02) and sure > least
    assert fit_temperature(logits[:3], votes[:3]) == pytest.approx(0.05, rel=0.01)
    wrong = votes.clone()
    wrong[:30] = votes[:30].flip(1)
    plain, cautious = (f(logits, wrong) for f in (fit_temperature, cautious_temperature))
    assert cautious == pytest.approx(plain, rel=0.1)
