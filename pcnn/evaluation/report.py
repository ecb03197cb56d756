"""Reports of an evaluation: printed tables and files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from pcnn.errors import counted
from pcnn.evaluation.charts import draw_confusion, draw_coverage, draw_reliability
from pcnn.evaluation.cost import Cost
from pcnn.evaluation.evaluate import Evaluation
from pcnn.evaluation.scores import Scores
from pcnn.evaluation.tables import class_table, coverage_table, overall_table, write_csv


def write_files(scores: Scores, report: dict[str, Any], folder: Path) -> None:
    """Write report, tables and charts to a folder. Raises OSError: a file cannot be written."""
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    write_csv(scores, classes=folder / "per_class.csv", confusion=folder / "confusion.csv")
    draw_confusion(scores, folder / "confusion.png")
    draw_reliability(scores, folder / "reliability.png")
    draw_coverage(scores, folder / "coverage.png")


def show(evaluation: Evaluation, cost: Cost, title: str) -> None:
    """Print the results as tables."""
    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:  # rich itself would exit on a closed pipe
        for line in _lines(evaluation, title):
            console.print(line, soft_wrap=True)
        if not console.is_terminal:
            console.width = 200  # more than any of them needs
        scores = evaluation.scores
        tables = (
            overall_table(scores, evaluation.other, mirror=evaluation.mirror),
            class_table(scores),
        )
        for table in (*tables, coverage_table(scores)):
            console.print("", table, sep="\n")
        console.print("", _cost_text(cost), sep="\n", soft_wrap=True)
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def _lines(evaluation: Evaluation, title: str) -> Iterator[str]:
    """Lines about the scored faces and those left out."""
    common = evaluation.common
    yield f"{title}: {counted(len(common.faces), 'face')}"
    if evaluation.aligned:
        yield "faces with detected landmarks are aligned"
    if common.data_only:
        names = ", ".join(common.data_only)
        left_out = counted(common.left_out, "face")
        yield f"left out: {left_out} of classes that the network lacks ({names})"
    if common.network_only:
        names = ", ".join(common.network_only)
        yield (
            f"probabilities renormalised without classes that the data lacks ({names}), "
            f"which were the likeliest for {counted(evaluation.outside, 'face')}"
        )


def _cost_text(cost: Cost) -> str:
    text = f"{cost.parameters / 1e6:.1f} M parameters, {cost.macs / 1e9:.2f} GMACs per face"
    if cost.latency_ms is None:
        return text
    threads = f", threads: {cost.threads}" if cost.device == "cpu" else ""
    return f"{text}, {cost.latency_ms:.1f} ms for a single face ({cost.device}{threads})"
