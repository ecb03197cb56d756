import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcnn.metrics import accuracy, calibration_error, fit_temperature


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
