"""What a head's training tells: lines to print, a table of all pictures, and a chart."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcnn.disk import CsvStream, whole_file
from pcnn.errors import counted
from pcnn.evaluation.charts import draw_agreement, draw_confusion
from pcnn.evaluation.scores import Estimate, Scores
from pcnn.evaluation.values import ValueScores
from pcnn.images.files import shown

_LISTED = 10  # problems and suspects in the printed report


@dataclass(frozen=True, eq=False)
class Validated:
    """The validated pictures of a head, in order.

    names: M names of pictures. folds: (M,). several: how many have more than one face.
    problems: a line for each picture that was left out. notes: a line for each folder without
    pictures. groups: whether folds keep groups whole.
    """

    names: tuple[str, ...]
    folds: NDArray[np.int64]
    several: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    groups: bool


@dataclass(frozen=True, eq=False)
class LabelReport:
    """How good a head for labels is, by cross-validation.

    accuracy: with Wilson's interval. scores: the other measures, calibrated.
    labels: M labels as given. probabilities: (M, classes), each by a head that has not seen the
        picture. temperature: by which the head's logits are divided.
    """

    pictures: Validated
    accuracy: Estimate
    scores: Scores
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    temperature: float

    @property
    def suspects(self) -> list[int]:
        """Pictures that look mislabelled, the likeliest first.

        Those with another answer, for which their own label is less likely than by chance.
        """
        own, answers = self._own()
        chance = 1 / len(self.scores.classes)
        order = np.argsort(own, kind="stable").tolist()
        return [at for at in order if answers[at] != self.labels[at] and own[at] < chance]

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        scores, pictures = self.scores, self.pictures
        yield from _opening(pictures)
        yield _validation(pictures)
        yield f"  accuracy     {_percent(self.accuracy)}"
        yield f"  mean recall  {_percent(scores.overall['macro_recall'])}"
        frequent = max(each.faces for each in scores.classes.values())
        yield f"  always the most frequent label would be right for {frequent / scores.faces:.1%}"
        width = max(map(len, (*scores.classes, "label")))
        yield f"  {'label':{width}}  faces  recall  otherwise taken for"
        for row, (name, each) in enumerate(scores.classes.items()):
            others = self._mistaken(row)
            yield f"  {name:{width}}  {each.faces:5}  {each.recall.value:6.1%}  {others}".rstrip()
        yield f"  temperature  {self.temperature:.2f}"
        suspects = self.suspects
        if not suspects:
            yield "No picture looks mislabelled."
            return
        yield f"Look at {counted(len(suspects), 'picture')} that may be mislabelled:"
        own, answers = self._own()
        for at in suspects[:_LISTED]:
            answer = self.probabilities[at].max()
            name = shown(pictures.names[at])
            yield (
                f"  {name}: labelled {self.labels[at]} ({own[at]:.1%}), "
                f"looks like {answers[at]} ({answer:.1%})"
            )
        if len(suspects) > _LISTED:
            yield f"  … and {len(suspects) - _LISTED} more, see the table"

    def write_table(self, path: Path) -> None:
        """Write a CSV with a row for each picture, the least likely label first."""
        own, answers = self._own()
        header = ("picture", "label", "answer", "probability_of_label", "fold", "problem")
        rows = [
            [
                *(self.pictures.names[at], self.labels[at], answers[at], f"{own[at]:.6f}"),
                *(self.pictures.folds[at] + 1, ""),
            ]
            for at in np.argsort(own, kind="stable")
        ]
        _write(path, header, rows, self.pictures.problems)

    def draw(self, path: Path) -> None:
        """Draw the confusion matrix as a PNG."""
        draw_confusion(self.scores, path)

    def _own(self) -> tuple[NDArray[np.float64], list[str]]:
        """The probability of each picture's own label, and the likeliest label."""
        classes = tuple(self.scores.classes)
        places = [classes.index(label) for label in self.labels]
        own = self.probabilities[np.arange(len(places)), places]
        return own, [classes[best] for best in self.probabilities.argmax(1)]

    def _mistaken(self, row: int) -> str:
        """The other answers to the faces of a label, the most frequent first."""
        counts = self.scores.confusion[row].copy()
        counts[row] = 0
        classes = tuple(self.scores.classes)
        order = [at for at in np.argsort(-counts, kind="stable") if counts[at]]
        return ", ".join(f"{classes[at]} ({counts[at]})" for at in order)


@dataclass(frozen=True, eq=False)
class ValueReport:
    """How good a head for numbers is, by cross-validation.

    scores: name → ValueScores. labels, answers: (M, names), each answer by a head that has not
    seen the picture.
    """

    pictures: Validated
    scores: Mapping[str, ValueScores]
    labels: NDArray[np.float64]
    answers: NDArray[np.float64]

    def lines(self) -> Iterator[str]:
        """The report, line by line."""
        pictures = self.pictures
        yield from _opening(pictures)
        yield _validation(pictures)
        width = max(map(len, (*self.scores, "value")))
        yield f"  {'value':{width}}  {'CCC (95 %)':20}  {'error, RMSE (95 %)':24}  naming the mean"
        for name, each in self.scores.items():
            ccc, rmse = _range(each.ccc, ".2f"), _range(each.rmse, ".3g")
            yield f"  {name:{width}}  {ccc:20}  {rmse:24}  {each.spread:.3g}"

    def write_table(self, path: Path) -> None:
        """Write a CSV with a row for each picture, the largest error first."""
        names = list(self.scores)
        spread = np.maximum([each.spread for each in self.scores.values()], 1e-12)
        errors = (np.abs(self.answers - self.labels) / spread).max(1)
        header = ("picture", *names, *(f"{name}_answer" for name in names), "fold", "problem")
        rows = [
            [
                *(self.pictures.names[at], *self.labels[at].tolist()),
                *(f"{answer:.6g}" for answer in self.answers[at]),
                *(self.pictures.folds[at] + 1, ""),
            ]
            for at in np.argsort(-errors, kind="stable")
        ]
        _write(path, header, rows, self.pictures.problems)

    def draw(self, path: Path) -> None:
        """Draw the answers over the labels as a PNG."""
        draw_agreement(self.labels, self.answers, list(self.scores), path)


def _opening(pictures: Validated) -> Iterator[str]:
    """Lines about the pictures that are used and those that are not."""
    total = len(pictures.names) + len(pictures.problems)
    yield f"{counted(len(pictures.names), 'face')} of {counted(total, 'picture')}"
    if pictures.several:
        yield f"Several faces in {counted(pictures.several, 'picture')}: the largest was taken."
    if pictures.problems:
        yield f"Left out: {len(pictures.problems)}"
        yield from (f"  {each}" for each in pictures.problems[:_LISTED])
        if len(pictures.problems) > _LISTED:
            yield f"  … and {len(pictures.problems) - _LISTED} more, see the table"
    yield from (f"Note: {each}" for each in pictures.notes)


def _validation(pictures: Validated) -> str:
    """A line that says how the scores were measured."""
    folds = counted(int(pictures.folds.max()) + 1, "fold")
    whole = ", groups kept whole" if pictures.groups else ""
    return f"Cross-validated in {folds}{whole}: each face is read by a head that has not seen it."


def _write(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], problems: Sequence[str]
) -> None:
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(CsvStream(file))
        writer.writerow(header)
        writer.writerows(rows)
        writer.writerows([*[""] * (len(header) - 1), problem] for problem in problems)


def _percent(estimate: Estimate) -> str:
    low, high = estimate.low, estimate.high
    return f"{estimate.value:.1%} (95 % interval {100 * low:.1f} … {100 * high:.1f})"


def _range(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} ({estimate.low:{form}} … {estimate.high:{form}})"
