"""Charts of a network's scores: confusion matrix, reliability diagram, risk–coverage curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError
from pcnn.evaluation.scores import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _PALE, _GREY = "#2a6fbb", "#c5d8ee", "#8a8a8a"
_FEW = 10  # the accuracy of fewer faces is too uncertain
_DOTS_PER_INCH = 110


def draw_confusion(scores: Scores, picture: Path) -> None:
    """Draw the confusion matrix: the answers (columns) to the faces of each label, in percent.

    picture: the PNG to write. Raises InputError: matplotlib is not installed.
    """
    names = list(scores.classes)
    faces = scores.confusion.sum(1, keepdims=True)
    shares = 100 * scores.confusion / np.maximum(faces, 1)
    side = 2.4 + 0.62 * len(names)
    figure = _figure(side, side - 0.3)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        number = scores.confusion[row, column]
        colour = "white" if share > 55 else "black" if number else _GREY
        text = f"{share:.0f}\n({number})" if number else "0" if faces[row, 0] else "–"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="label", title="Answers to the faces of each label: % (faces)")
    axes.spines[:].set_visible(False)
    figure.savefig(picture)


def draw_reliability(scores: Scores, picture: Path) -> None:
    """Draw the accuracy and the number of faces for each bin of the confidence.

    picture: the PNG to write. Raises InputError: matplotlib is not installed.
    """
    bins = scores.reliability
    width = 1 / len(bins)
    left = np.arange(len(bins)) * width
    faces, confidences, accuracies = (np.array(each) for each in zip(*bins, strict=True))
    figure = _figure(4.8, 5.4)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for bars, colour, text in (
        (faces >= _FEW, _BLUE, "accuracy"),
        (faces < _FEW, _PALE, f"of fewer than {_FEW} faces"),
    ):
        upper.bar(
            left[bars], accuracies[bars], width, align="edge", color=colour, ec="white", label=text
        )
    upper.plot((0, 1), (0, 1), "--", color=_GREY, label="perfect calibration")
    upper.plot(confidences, accuracies, ".", color="black", label="mean confidence")
    error = scores.overall["calibration_error"].value
    upper.set(ylabel="accuracy", ylim=(0, 1), title=f"Expected calibration error {error:.3f}")
    lower.bar(left, faces, width, align="edge", color=_GREY, ec="white")
    lower.set(xlabel="confidence", ylabel="faces", xlim=(0, 1))
    upper.spines[["top", "right"]].set_visible(False)
    lower.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(picture)


def draw_coverage(scores: Scores, picture: Path) -> None:
    """Draw the share of errors among the most confident answers, over their share of all answers.

    picture: the PNG to write. Raises InputError: matplotlib is not installed.
    """
    share = 100 * np.arange(1, scores.faces + 1) / scores.faces
    figure = _figure(5.2, 3.8)
    axes = figure.subplots()
    axes.plot(share, 100 * scores.risks, color=_BLUE)
    for point in scores.coverage:
        at = (100 * point.share, 100 * (1 - point.accuracy))
        axes.plot(*at, "o", color=_BLUE, ms=4)
        axes.annotate(f"{at[1]:.1f}", at, (0, 6), textcoords="offset points", ha="right")
    area = scores.overall["risk_area"].value
    axes.set(
        xlabel="coverage: faces answered, the most confident first (%)",
        ylabel="risk: wrong among them (%)",
        title=f"Area under the curve {area:.3f}",
        xlim=(0, 102),
        ylim=(0, 1.1 * max(100 * float(scores.risks[-1]), 1)),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)


def draw_agreement(
    labels: NDArray[np.float64],
    answers: NDArray[np.float64],
    names: Sequence[str],
    picture: Path,
) -> None:
    """Draw predicted numbers over the labels, a chart for each name.

    labels, answers: (N, names). picture: the PNG to write.
    Raises InputError: matplotlib is not installed.
    """
    figure = _figure(3.6 * len(names), 3.8)
    charts = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name, known, answered in zip(charts, names, labels.T, answers.T, strict=True):
        ends = (min(known.min(), answered.min()), max(known.max(), answered.max()))
        axes.plot(ends, ends, "--", color=_GREY)
        axes.plot(known, answered, ".", color=_BLUE, alpha=0.6, ms=5, mec="none")
        axes.set(xlabel=f"{name}, label", ylabel="answer", aspect="equal")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, width × height inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing scores needs matplotlib: pip install 'pcnn[train]'") from error
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
