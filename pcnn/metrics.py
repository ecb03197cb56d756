"""Scores of a classifier, and the temperature that makes its probabilities mean something."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def accuracy(logits: Tensor, votes: Tensor) -> float:
    """The share of faces whose likeliest class is the one with most votes, 0…1.

    logits, votes: (N, classes), N ≥ 1; ties in the votes go to the first class.
    """
    return float((logits.argmax(1) == votes.argmax(1)).float().mean())


def fit_temperature(logits: Tensor, votes: Tensor) -> float:
    """The T for which softmax(logits / T) has the least cross-entropy to the majority label.

    logits, votes: (N, classes), N ≥ 1. The loss is convex in 1 / T, so a search by thirds in
    0.05…20 finds it. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    labels = votes.argmax(1)

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits.double() * inverse, labels))

    low, high = 0.05, 20.0
    for _ in range(80):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error, 0…1: how far confidence and accuracy differ, bin by bin.

    probabilities: (N, classes), rows sum to 1. labels: (N,) int64. Equal-width bins of the
    confidence, weighted by their faces. Source: Guo et al. 2017.
    """
    confidence, predicted = probabilities.max(1)
    right = (predicted == labels).double()
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64)
    gaps.index_add_(0, bin_of, right - confidence.double())
    return float(gaps.abs().sum() / len(labels))
