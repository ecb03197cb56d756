"""Losses of the expression network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def two_phase_loss(
    logits: Tensor, region_logits: Tensor, targets: Tensor, *, alpha: float = 12, beta: float = 8
) -> Tensor:
    """The two-phase loss alpha · CE(logits) + beta · CE(region logits), averaged over the batch.

    logits, region_logits: (B, classes). targets: (B, classes) probabilities, or (B,) int64.
    Source: Tian et al. 2025, also for alpha and beta.
    """
    return alpha * F.cross_entropy(logits, targets) + beta * F.cross_entropy(region_logits, targets)


def movement_loss(answers: Tensor, targets: Tensor) -> Tensor:
    """The mean error, squared below a deviation, of the faces whose movements are known.

    answers, targets: (B, K); rows of NaN in targets are unknown.
    """
    known = targets.isfinite().all(1)
    if not known.any():
        return answers.sum() * 0
    return F.smooth_l1_loss(answers[known], targets[known])
