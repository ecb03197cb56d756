"""Scores of predicted numbers, such as valence: concordance and error, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pcnn.errors import InputError
from pcnn.evaluation.scores import Estimate, resamplings


@dataclass(frozen=True)
class ValueScores:
    """Scores of one number over all faces.

    ccc: the concordance correlation coefficient, −1…1, see `concordance`. rmse: the root of the
    mean squared error, in the number's own unit. spread: the labels' standard deviation, the error
    of always naming their mean.
    """

    ccc: Estimate
    rmse: Estimate
    spread: float


def concordance(answers: ArrayLike, labels: ArrayLike) -> float:
    """The concordance correlation coefficient of two rows of numbers, −1…1; NaN if undefined.

    answers, labels: (N,). 2 · covariance / (sum of the variances + squared difference of the
    means). Source: Lin 1989, A Concordance Correlation Coefficient to Evaluate Reproducibility.
    That is 1 − the mean squared difference, divided by what it would be if both rows were
    independent. If all numbers of both are the same, this is 1 − 0 / 0, and so is it without a
    number: NaN. Otherwise a row of equal numbers gives 0.
    """
    first, second = np.asarray(answers, np.float64), np.asarray(labels, np.float64)
    # Asked of the numbers themselves: by rounding, equal ones can have a variance above 0.
    if any(bool((row == row[:1]).all()) for row in (first, second)):
        return float("nan") if np.array_equal(first, second) else 0.0
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    scale = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    return float(2 * covariance / scale) if scale > 0 else float("nan")


def score_values(  # noqa: PLR0913 - two tables, and how intervals are drawn
    answers: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, ValueScores]:
    """Score predicted numbers against labels.

    answers, labels: (N, names), N ≥ 1, finite. groups, bootstrap, seed: as for `scores.score`.
    Returns name → ValueScores. Raises InputError: wrong shapes or values.
    """
    given, known = np.asarray(answers, np.float64), np.asarray(labels, np.float64)
    if given.shape != known.shape or given.ndim != 2 or given.shape[1] != len(names):
        raise InputError(
            f"score_values: answers and labels must be (N, {len(names)}), "
            f"got {given.shape} and {known.shape}"
        )
    if not len(given) or not (np.isfinite(given).all() and np.isfinite(known).all()):
        raise InputError("score_values: answers and labels must be finite, at least one row")
    draws = list(resamplings(len(given), groups, rounds=bootstrap, seed=seed))
    found = {}
    for column, name in enumerate(names):
        own, truth = given[:, column], known[:, column]
        pairs = np.array([_both(own[rows], truth[rows]) for rows in draws]).reshape(-1, 2)
        ccc, rmse = (
            _estimate(value, rounds)
            for value, rounds in zip(_both(own, truth), pairs.T, strict=True)
        )
        found[name] = ValueScores(ccc, rmse, float(truth.std()))
    return found


def _both(answers: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float]:
    """Concordance and root mean squared error."""
    return concordance(answers, labels), float(np.sqrt(((answers - labels) ** 2).mean()))


def _estimate(value: float, rounds: NDArray[np.float64]) -> Estimate:
    known = rounds[~np.isnan(rounds)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (float("nan"),) * 2
    return Estimate(value, float(low), float(high))
