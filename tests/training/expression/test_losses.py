"""Losses of the expression training, by hand."""

from __future__ import annotations

import pytest
import torch

from pcnn.training.expression.losses import movement_loss


def test_unknown_movements_cost_nothing() -> None:
    answers = torch.tensor([[0.0, 2.0], [5.0, 5.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 0.0], [float("nan")] * 2])
    loss = movement_loss(answers, targets)
    assert float(loss.detach()) == pytest.approx((0 + 1.5) / 2)  # smooth: 2 − ½
    loss.backward()
    assert answers.grad is not None and answers.grad[1].abs().sum() == 0
    unknown = movement_loss(answers, targets[1:].expand(2, 2))
    assert float(unknown.detach()) == 0
