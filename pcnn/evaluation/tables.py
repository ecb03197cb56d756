"""A network's scores as tables: for reading, and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from pcnn.evaluation.scores import Estimate, Scores

_CLASS_COLUMNS = (
    *("class", "faces", "answers", "precision"),
    *("recall", "recall_low", "recall_high", "f1", "f1_low", "f1_high"),
)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


# Name and unit in Scores.overall's order of importance, and how the numbers are written.
_MEASURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy, %", _percent),
    "macro_recall": ("macro recall, %", _percent),
    "macro_f1": ("macro F1, %", _percent),
    "calibration_error": ("calibration error", _decimal),
    "log_loss": ("log loss", _decimal),
    "brier": ("Brier score", _decimal),
    "risk_area": ("area under risk–coverage", _decimal),
}


def overall_table(scores: Scores, other: Scores | None = None, *, mirror: bool = False) -> Table:
    """The measures with their intervals; a second pair of columns for `other`.

    mirror: `scores` are with mirror images and `other` without, not the other way round.
    """
    table = _table("measure", "value", "95 % interval")
    if other is not None:
        table.add_column("without mirror" if mirror else "with mirror", justify="right")
        table.add_column("95 % interval", justify="right")
    for name, (text, written) in _MEASURES.items():
        found = [each.overall[name] for each in (scores, other) if each is not None]
        cells = (cell for each in found for cell in _told(each, written))
        table.add_row(text, *cells)
    return table


def class_table(scores: Scores) -> Table:
    """A row for each class: faces, precision, and recall and F1 with their intervals, percent."""
    table = _table("class", "faces", "precision", "recall", "95 % interval", "F1", "95 % interval")
    for name, each in scores.classes.items():
        recall, f1 = _told(each.recall, _percent), _told(each.f1, _percent)
        table.add_row(name, f"{each.faces:,}", _percent(each.precision), *recall, *f1)
    return table


def coverage_table(scores: Scores) -> Table:
    """The accuracy of the surest answers, and the confidence from which they are that sure."""
    table = _table("surest faces", *(f"{each.share:.0%}" for each in scores.coverage))
    table.add_row("accuracy, %", *(_percent(each.accuracy) for each in scores.coverage))
    table.add_row("from confidence", *(f"{each.confidence:.2f}" for each in scores.coverage))
    return table


def write_csv(scores: Scores, *, classes: Path, confusion: Path) -> None:
    """Write a line for each class, with shares of 0…1 and nothing where there is no number; and
    the confusion matrix: a line for each label, a column for each answer."""
    _write(classes, _CLASS_COLUMNS, _class_rows(scores))
    matrix = zip(scores.classes, scores.confusion.tolist(), strict=True)
    _write(confusion, ("label", *scores.classes), ([name, *row] for name, row in matrix))


def _class_rows(scores: Scores) -> Iterable[list[object]]:
    for name, each in scores.classes.items():
        numbers = (each.precision, *each.recall, *each.f1)
        known = ("" if math.isnan(number) else number for number in numbers)
        yield [name, each.faces, each.answers, *known]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _told(estimate: Estimate, written: Callable[[float], str]) -> tuple[str, str]:
    """Value and interval, for reading."""
    if math.isnan(estimate.low):
        return written(estimate.value), "–"
    return written(estimate.value), f"{written(estimate.low)} … {written(estimate.high)}"
