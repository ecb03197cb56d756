"""Cross-validation: folds, answers by heads fitted without the face, temperature, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pcnn.embeddings.heads import Vectors
from pcnn.errors import InputError, counted
from pcnn.evaluation.metrics import fit_temperature
from pcnn.evaluation.scores import Estimate

FOLDS = 5
LEAST_PICTURES = 5  # of a label, one for each fold
# Of a class that a fold's head has not seen: low, but finite.
_LEAST_LOGIT = math.log(1e-6)
_NORMAL = 1.959964  # of a 95 % interval


def check_labels(  # noqa: PLR0913
    labels: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    subject: str,
    problems: Sequence[str] = (),
    faces: bool = False,
) -> int:
    """The number of folds for labelled pictures: FOLDS, or fewer where a label has fewer groups.

    labels, groups: of the N pictures with a face. classes: all labels, also without pictures.
    subject, problems, faces: for messages: the data, why others were left out, and whether the
        pictures are cut-out faces.
    Raises InputError: too few labels, or too few pictures or groups of a label.
    """
    if len(classes) < 2:
        raise InputError(f"{subject}: there must be two labels or more, got {classes[0]!r} alone")
    least = FOLDS
    for name in classes:
        own = [group for label, group in zip(labels, groups, strict=True) if label == name]
        if len(own) < LEAST_PICTURES:
            raise InputError(
                f"{subject}: label {name!r} has {counted(len(own), 'picture')} with a face, but "
                f"needs {LEAST_PICTURES}: add pictures, or leave the label out"
                f"{left_out(problems, faces=faces)}"
            )
        if len(set(own)) < 2:
            raise InputError(
                f"{subject}: all pictures of label {name!r} are of one group or copies of one: it "
                "needs two or more, to be tested on what it has not learnt"
            )
        least = min(least, len(set(own)))
    return least


def left_out(problems: Sequence[str], *, faces: bool) -> str:
    """The end of a message: the first picture that was left out, and what may help."""
    if not problems:
        return ""
    text = f" ({len(problems)} left out, such as {problems[0]})"
    if not faces and any(each.endswith("no face found") for each in problems):
        text += "; use faces= if each picture is one cut-out face"
    return text


def assign_folds(
    kinds: NDArray[np.int64], groups: Sequence[str], count: int, seed: int
) -> NDArray[np.int64]:
    """The fold, 0…count − 1, of each example; groups stay whole, and labels are spread evenly.

    kinds: (N,), the number of each example's label, from 0. groups: N names.
    count: at most the number of groups. seed: of the order in which groups are dealt out, the
    largest first.
    """
    _, member = np.unique(np.array(groups), return_inverse=True)
    table = np.zeros((member.max() + 1, kinds.max() + 1))  # examples by group and label
    np.add.at(table, (member, kinds), 1)
    order = np.random.default_rng(seed).permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    filled = np.zeros((count, table.shape[1]))
    chosen = np.empty(len(table), np.int64)
    weights = 1 / np.maximum(table.sum(0), 1)  # rare labels count as much as frequent ones
    for group in order:
        crowded = (filled * weights) @ table[group]
        fold = int(np.lexsort((filled.sum(1), crowded))[0])
        filled[fold] += table[group]
        chosen[group] = fold
    return chosen[member]


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
    """The T that makes softmax(logits / T) likeliest for the labels, cautiously.

    logits: (N, K), of faces left out. labels: (N,). As metrics.fit_temperature, but towards
    labels that are right with a probability of (N + 1) / (N + K) alone: few faces, all of them
    right, do not show that there is no error (Platt 1999, for two classes).
    """
    count, classes = logits.shape
    votes = F.one_hot(torch.from_numpy(labels), classes)
    return fit_temperature(torch.from_numpy(logits), votes, doubt=classes / (count + classes))


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
