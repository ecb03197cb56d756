"""Folds of labelled pictures: groups and copies of a picture stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError, counted
from pcnn.images.files import file_error, shown

FOLDS = 5
LEAST_PICTURES = 5  # of a label, one for each fold
_ORDERS = 50  # in which groups are dealt out before there is an error
_NAMED = 5  # groups in a message


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


def digests_of(files: Sequence[Path]) -> tuple[dict[int, str], dict[int, str]]:
    """Index → SHA-256 of each file's contents, and index → the reason why it cannot be read."""
    digests, problems = {}, {}
    for at, file in enumerate(files):
        try:
            digests[at] = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            problems[at] = f"{shown(file)}: {file_error(error)}"
        except ValueError as error:  # a name with a NUL
            problems[at] = f"{shown(file)}: cannot be opened ({error})"
    return digests, problems
