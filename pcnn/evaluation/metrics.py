"""Scores of a classifier, and the temperature that calibrates its probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings

CALIBRATION_BINS = 15


def accuracy(logits: Tensor, votes: Tensor) -> float:
    """The share of faces whose likeliest class has the most votes, 0…1.

    logits, votes: (N, classes), N ≥ 1. Of classes with equal votes the first one counts.
    """
    return float((logits.argmax(1) == votes.argmax(1)).float().mean())


@own_settings()
def fit_temperature(logits: Tensor, votes: Tensor, *, doubt: float = 0.0) -> float:
    """The T that minimises the cross-entropy of softmax(logits / T) with the majority labels.

    logits, votes: (N, classes), N ≥ 1. doubt: 0…1, the share of each label that is spread evenly
    over all classes. The loss is convex in 1 / T, so a ternary search in 0.05…20 finds its
    minimum. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    labels = votes.argmax(1)

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits.double() * inverse, labels, label_smoothing=doubt))

    low, high = 0.05, 20.0
    for _ in range(80):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def cautious_temperature(logits: Tensor, votes: Tensor) -> float:
    """As fit_temperature, towards labels that are right with (N + 1) / (N + K) alone.

    logits, votes: (N, K), N ≥ 1, of faces that the network did not learn. Few faces, all of them
    right, do not show that there is no error (Platt 1999, for two classes).
    """
    count, classes = logits.shape
    return fit_temperature(logits, votes, doubt=classes / (count + classes))


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error, 0…1: the mean difference of confidence and accuracy.

    probabilities: (N, classes), rows sum to 1. labels: (N,) int64. Confidences are sorted into
    bins of equal width, weighted by their number of faces. Source: Guo et al. 2017.
    """
    _, confidence, right = reliability(probabilities, labels, bins)
    return float((right - confidence).abs().sum() / len(labels))


def reliability(
    probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS
) -> tuple[Tensor, Tensor, Tensor]:
    """The reliability diagram: counts for each of the equal-width bins of the confidence.

    probabilities, labels: as for `calibration_error`.
    Returns three (bins,) float64: number of faces, sum of confidences, number of right answers.
    """
    confidence, answers = probabilities.double().max(1)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    right = (answers == labels).double()
    sums = torch.zeros(3, bins, dtype=torch.float64)
    sums.index_add_(1, bin_of, torch.stack((torch.ones_like(right), confidence, right)))
    faces, confidences, rights = sums
    return faces, confidences, rights


def brier_scores(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Brier scores (N,), 0…2: squared distances between probabilities and one-hot labels.

    probabilities: (N, classes). labels: (N,) int64. Source: Brier 1950, for several classes.
    """
    return (probabilities - F.one_hot(labels, probabilities.shape[1])).square().sum(1)


def risks(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The risk–coverage curve: the share of errors among the k most confident answers, k = 1…N.

    probabilities: (N, classes). labels: (N,) int64. Equal confidences keep the faces' order.
    Returns (N,) float64. Its mean is the area under the curve. Source: Geifman and El-Yaniv
    2017, Selective Classification for Deep Neural Networks.
    """
    confidence, answers = probabilities.max(1)
    wrong = (answers != labels)[confidence.argsort(descending=True, stable=True)].double()
    return wrong.cumsum(0) / torch.arange(1, len(labels) + 1)
