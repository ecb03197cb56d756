"""Scores of a classifier, and the temperature that makes its probabilities mean something."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings

CALIBRATION_BINS = 15


def accuracy(logits: Tensor, votes: Tensor) -> float:
    """The share of faces whose likeliest class is the one with most votes, 0…1.

    logits, votes: (N, classes), N ≥ 1; ties in the votes go to the first class.
    """
    return float((logits.argmax(1) == votes.argmax(1)).float().mean())


@own_settings()
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


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error, 0…1: how far confidence and accuracy differ, bin by bin.

    probabilities: (N, classes), rows sum to 1. labels: (N,) int64. Equal-width bins of the
    confidence, weighted by their faces. Source: Guo et al. 2017.
    """
    _, confidence, right = reliability(probabilities, labels, bins)
    return float((right - confidence).abs().sum() / len(labels))


def reliability(
    probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS
) -> tuple[Tensor, Tensor, Tensor]:
    """What lies in each of the equal-width bins of the confidence: the reliability diagram.

    probabilities, labels: as for `calibration_error`.
    Returns, (bins,) float64 each: the faces, the sum of their confidences, how many are right.
    """
    confidence, answers = probabilities.double().max(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    right = (answers == labels).double()
    sums = torch.zeros(3, bins, dtype=torch.float64)
    sums.index_add_(1, bin_of, torch.stack((torch.ones_like(right), confidence, right)))
    faces, confidences, rights = sums
    return faces, confidences, rights


def brier_scores(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(N,): the squared distance of each face's probabilities from certainty of its label, 0…2.

    probabilities: (N, classes). labels: (N,) int64. Source: Brier 1950, with several classes.
    """
    return (probabilities - F.one_hot(labels, probabilities.shape[1])).square().sum(1)


def risks(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The risk–coverage curve: the share of errors among the k surest answers, k = 1…N.

    probabilities: (N, classes). labels: (N,) int64. Equal confidences keep the faces' order.
    Returns (N,) float64; the mean of it is the area under the curve. Source: Geifman and
    El-Yaniv 2017, Selective Classification for Deep Neural Networks.
    """
    confidence, answers = probabilities.max(1)
    wrong = (answers != labels)[confidence.argsort(descending=True, stable=True)].double()
    return wrong.cumsum(0) / torch.arange(1, len(labels) + 1)
