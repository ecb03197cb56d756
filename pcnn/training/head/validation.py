"""Cross-validation: answers by heads fitted without the face, temperature, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pcnn.embeddings.heads import Vectors
from pcnn.evaluation.metrics import cautious_temperature
from pcnn.evaluation.scores import Estimate

# Of a class that a fold's head has not seen: low, but finite.
_LEAST_LOGIT = math.log(1e-6)
_NORMAL = 1.959964  # of a 95 % interval


def out_of_fold(
    folds: NDArray[np.int64], answer: Callable[[NDArray[np.int64], NDArray[np.int64]], Vectors]
) -> Vectors:
    """The answers (N, K) of all examples, each by a head fitted on the other folds.

    answer: function from the indices to fit on and the indices to answer to (answers, K).
    """
    rows: dict[int, Vectors] = {}
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold)
        answers = answer(np.flatnonzero(folds != fold), inside)
        rows |= zip(inside.tolist(), answers, strict=True)
    return np.stack([rows[place] for place in range(len(folds))])


def logits_for(
    classes: Sequence[str], labels: Sequence[str], probabilities: Vectors
) -> NDArray[np.float32]:
    """Logarithms (N, classes) of the probabilities (N, labels) of a head.

    labels: of the head, among `classes`, in their order; classes that it lacks are unlikely.
    """
    logits = np.full((len(probabilities), len(classes)), _LEAST_LOGIT, np.float32)
    columns = [classes.index(label) for label in labels]
    logits[:, columns] = np.log(np.maximum(probabilities, 1e-12))
    return logits


def calibrated_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The T of metrics.cautious_temperature. logits: (N, K), of faces left out. labels: (N,)."""
    votes = F.one_hot(torch.from_numpy(labels), logits.shape[1])
    return cautious_temperature(torch.from_numpy(logits), votes)


def share_of(right: NDArray[np.bool_], groups: Sequence[str]) -> Estimate:
    """The share of right answers with Wilson's 95 % interval (Wilson 1927).

    right: (N,), N ≥ 1. groups: N names. Faces of one group are alike, so they count as fewer: N is
    divided by the design effect, the ratio of the share's variance with and without groups (Kish
    1965). Where all answers are right or all wrong, each group counts once.
    """
    count, share = len(right), float(right.mean())
    _, member = np.unique(np.array(groups), return_inverse=True)
    clusters = int(member.max()) + 1
    effective = float(clusters)
    if clusters < count and 0 < share < 1:
        sums = np.bincount(member, weights=right - share)
        variance = float((sums**2).sum()) / count**2 * clusters / max(clusters - 1, 1)
        effective = count / max(variance / (share * (1 - share) / count), 1)
    squared = _NORMAL**2 / effective
    middle = (share + squared / 2) / (1 + squared)
    width = math.sqrt(share * (1 - share) * squared + squared**2 / 4) / (1 + squared)
    return Estimate(share, max(middle - width, 0.0), min(middle + width, 1.0))
