"""A network's scores as printed tables and CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from pcnn.disk import CsvStream
from pcnn.evaluation.scores import Estimate, Scores

_CLASS_COLUMNS = (
    *("class", "faces", "answers", "precision"),
    *("recall", "recall_low", "recall_high", "f1", "f1_low", "f1_high"),
)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _decimal(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


# Name in Scores.overall → name and unit in the table, and the format of its numbers.
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
    """The measures with their intervals, and a second pair of columns for `other`.

    mirror: True if `scores` use mirror images and `other` does not; False for the opposite.
    """
    table = _table("measure", "value", "95 % interval")
    if other is not None:
        table.add_column("without mirror" if mirror else "with mirror", justify="right")
        table.add_column("95 % interval", justify="right")
    for name, (text, written) in _MEASURES.items():
        found = [each.overall[name] for each in (scores, other) if each is not None]
        cells = (cell for each in found for cell in _estimate_text(each, written))
        table.add_row(text, *cells)
    return table


def class_table(scores: Scores) -> Table:
    """A row for each class: faces, precision, recall and F1 with their intervals, in percent."""
    table = _table("class", "faces", "precision", "recall", "95 % interval", "F1", "95 % interval")
    for name, each in scores.classes.items():
        recall, f1 = _estimate_text(each.recall, _percent), _estimate_text(each.f1, _percent)
        table.add_row(name, f"{each.faces:,}", _percent(each.precision), *recall, *f1)
    return table


def coverage_table(scores: Scores) -> Table:
    """The accuracy of the most confident answers, and their least confidence."""
    table = _table("most confident", *(f"{each.share:.0%}" for each in scores.coverage))
    table.add_row("accuracy, %", *(_percent(each.accuracy) for each in scores.coverage))
    table.add_row("from confidence", *(f"{each.confidence:.2f}" for each in scores.coverage))
    return table


def write_csv(scores: Scores, *, classes: Path, confusion: Path) -> None:
    """Write two CSV files: the scores of each class, and the confusion matrix.

    classes: a line for each class, with shares of 0…1; undefined numbers are empty.
    confusion: a line for each label, a column for each answer.
    """
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
        writer = csv.writer(CsvStream(file))
        writer.writerow(header)
        writer.writerows(rows)


def _table(first: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _estimate_text(estimate: Estimate, written: Callable[[float], str]) -> tuple[str, str]:
    """Value and interval as text."""
    if math.isnan(estimate.low):
        return written(estimate.value), "–"
    return written(estimate.value), f"{written(estimate.low)} … {written(estimate.high)}"
