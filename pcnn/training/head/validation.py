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
_ORDERS = 50  # in which groups are dealt out before there is an error
_NAMED = 5  # groups in a message
_NORMAL = 1.959964  # of a 95 % interval


def check_labels(  # noqa: PLR0913
    labels: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    *,
    subject: str,
    problems: Sequence[str] = (),
    notes: Sequence[str] = (),
    faces: bool = False,
) -> int:
    """The number of folds for labelled pictures: FOLDS, or fewer where a label has fewer groups.

    labels, groups: of the N pictures with a face. classes: all labels, also without pictures.
    subject, problems, notes, faces: for messages: the data, why others were left out, what else
        was noticed, and whether the pictures are cut-out faces.
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
                f"{left_out(problems, notes, faces=faces)}"
            )
        if len(set(own)) < 2:
            raise InputError(
                f"{subject}: all pictures of label {name!r} are of one group or copies of one: it "
                "needs two or more, to be tested on what it has not learnt"
            )
        least = min(least, len(set(own)))
    return least


def left_out(problems: Sequence[str], notes: Sequence[str], *, faces: bool) -> str:
    """The end of a message: the first picture that was left out, and what may help."""
    text = f" ({len(problems)} left out, such as {problems[0]})" if problems else ""
    text += f" ({notes[0]})" if notes else ""
    if not faces and any(each.endswith("no face found") for each in problems):
        text += "; use faces= if each picture is one cut-out face"
    return text


def united_groups(groups: Sequence[str], digests: Sequence[str]) -> list[str]:
    """The group of each example: as given, but one for groups that share a picture.

    groups: N names, or () where each picture is its own group. digests: N, of the pictures' files;
    copies have the same. A united group has the name that comes first.
    """
    if not groups:
        return list(digests)
    joined: dict[str, str] = {}  # group → an earlier one of the same pictures

    def first(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    owners: dict[str, str] = {}
    for group, digest in zip(groups, digests, strict=True):
        one, other = first(owners.setdefault(digest, group)), first(group)
        if one != other:
            joined[other] = one
    return [first(group) for group in groups]


def assign_folds(
    kinds: NDArray[np.int64],
    groups: Sequence[str],
    count: int,
    seed: int,
    *,
    classes: Sequence[str] = (),
) -> NDArray[np.int64]:
    """The fold, 0…count − 1, of each example; groups stay whole, and labels are spread evenly.

    Each label stands in two folds or more, so that all heads know it.
    kinds: (N,), the number of each example's label, from 0. groups: N names.
    count: at most the number of groups. seed: of the order in which groups are dealt out, the
    largest first; others are tried if that leaves a label in one fold.
    classes: the labels' names, for messages.
    Raises InputError: no order gives a label two folds.
    """
    names, member = np.unique(np.array(groups), return_inverse=True)
    table = np.zeros((member.max() + 1, kinds.max() + 1))  # examples by group and label
    np.add.at(table, (member, kinds), 1)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(table))
    order = order[np.argsort(-table[order].sum(1), kind="stable")]
    for _ in range(_ORDERS):
        chosen, alone = _deal(table, order, count)
        if alone < 0:
            return np.asarray(chosen[member], np.int64)
        order = draw.permutation(len(table))
    label = classes[alone] if classes else str(alone)
    own = names[table[:, alone] > 0].tolist()
    raise InputError(
        f"label {label!r} cannot be divided in folds that keep its groups whole and give every "
        f"label two folds; its groups are {', '.join(own[:_NAMED])}{' …' if own[_NAMED:] else ''}: "
        "add pictures of other groups, or leave the label out"
    )


def _deal(
    table: NDArray[np.float64], order: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], int]:
    """The fold of each group, and −1, or else a label that would stand in one fold alone.

    table: (groups, labels), numbers of examples. order: of the groups. count: of folds.
    """
    filled = np.zeros((count, table.shape[1]))
    chosen = np.empty(len(table), np.int64)
    left = (table > 0).sum(0)  # groups of each label that have no fold yet
    weights = 1 / np.maximum(table.sum(0), 1)  # rare labels count as much as frequent ones
    for group in order:
        own = table[group] > 0
        left -= own
        # Labels whose last group this is, while they stand in one fold or none.
        last = own & (left == 0) & ((filled > 0).sum(0) < 2)
        crowded = (filled * weights) @ table[group]
        alone = np.asarray((filled[:, last] > 0).any(axis=1))
        fold = int(np.lexsort((filled.sum(1), crowded, alone))[0])
        if alone[fold] or (last & (filled.sum(0) == 0)).any():
            return chosen, int(np.flatnonzero(last)[0])
        filled[fold] += table[group]
        chosen[group] = fold
    return chosen, -1


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
