"""Scores of numbers, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pcnn.errors import InputError
from pcnn.evaluation.scores import resamplings
from pcnn.evaluation.values import concordance, score_values


def test_concordance_by_hand() -> None:
    labels = [0.0, 1.0, 2.0]
    assert concordance(labels, labels) == pytest.approx(1)
    assert concordance([2.0, 1.0, 0.0], labels) == pytest.approx(-1)
    # Shifted by 1: covariance and both variances are 2/3, the means differ by 1.
    assert concordance([1.0, 2.0, 3.0], labels) == pytest.approx((4 / 3) / (4 / 3 + 1))
    assert concordance([1.0, 1.0, 1.0], labels) == 0
    assert math.isnan(concordance([1.0], [1.0]))


@pytest.mark.parametrize("value", [0.0, 0.1, -1 / 3, 1e-200, 1e16])
@pytest.mark.parametrize("count", [1, 3, 7, 1000])
def test_concordance_of_constants(value: float, count: int) -> None:
    """Equal ones leave 0 / 0, whatever their mean is rounded to; different ones do not agree."""
    same, other = [value] * count, [value + 1 + abs(value)] * count
    assert math.isnan(concordance(same, same))
    assert concordance(same, other) == concordance(other, same) == 0
    assert concordance(same, np.arange(count) + value + 1 + abs(value)) == 0


def test_concordance_without_numbers_and_near_zero() -> None:
    assert math.isnan(concordance([], []))
    assert math.isnan(concordance([0.0, 1e-200], [0.0, 1e-200]))  # their variances are 0


def test_constant_labels_have_no_concordance() -> None:
    labels = np.full((30, 1), 0.1)
    found = score_values(labels, labels, ["v"], bootstrap=20)["v"]
    assert np.isnan(found.ccc).all() and found.rmse == (0, 0, 0)


def test_scores_of_two_numbers() -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(0, 2, (200, 2))
    answers = labels + np.array([0.0, 1.0]) * draw.normal(0, 1, (200, 2))
    found = score_values(answers, labels, ("exact", "noisy"), bootstrap=200)
    assert found["exact"].ccc == (pytest.approx(1),) * 3
    assert found["exact"].rmse == (0, 0, 0)
    noisy = found["noisy"]
    assert noisy.rmse.low < noisy.rmse.value < noisy.rmse.high
    assert noisy.rmse.value == pytest.approx(np.sqrt(((answers - labels)[:, 1] ** 2).mean()))
    assert noisy.ccc.low < noisy.ccc.value < noisy.ccc.high < 1
    assert noisy.spread == pytest.approx(labels[:, 1].std())


def test_groups_are_drawn_whole() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    for rows in resamplings(6, groups, rounds=20, seed=1):
        counts = np.bincount(rows, minlength=6)
        assert counts[0] == counts[2] == counts[5] and counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3
    single = [row.tolist() for row in resamplings(6, list("abcdef"), rounds=3, seed=1)]
    assert single == [row.tolist() for row in resamplings(6, rounds=3, seed=1)]


def test_like_faces_widen_the_interval() -> None:
    """Ten copies of ten faces say no more than the ten."""
    labels = np.repeat(np.linspace(-1, 1, 10), 10)[:, None]
    answers = labels + np.repeat(np.random.default_rng(0).normal(0, 0.5, 10), 10)[:, None]
    people = [str(number // 10) for number in range(100)]
    alone = score_values(answers, labels, ["v"], bootstrap=300)["v"].rmse
    grouped = score_values(answers, labels, ["v"], bootstrap=300, groups=people)["v"].rmse
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(InputError, match=r"answers and labels must be \(N, 1\)"):
        score_values([[0.0]], [[0.0], [1.0]], ["v"])
    with pytest.raises(InputError, match="finite, at least one row"):
        score_values([[np.nan]], [[0.0]], ["v"])
