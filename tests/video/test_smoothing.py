"""Steady scores: what stays stays, what changes shows soon, at each frame rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pcnn.errors import InputError
from pcnn.video.smoothing import ScoreFilter, check_smoothing

CALM, MERRY = np.array([0.8, 0.15, 0.05]), np.array([0.05, 0.9, 0.05])


def test_the_first_frame_is_as_it_is() -> None:
    np.testing.assert_allclose(ScoreFilter(0.5).update(3.0, CALM), CALM, atol=1e-12)


def test_what_does_not_change_stays() -> None:
    own = ScoreFilter(0.5)
    for step in range(20):
        steady = own.update(step / 30, CALM)
    np.testing.assert_allclose(steady, CALM, atol=1e-12)


def test_the_temperature_divides_log_odds() -> None:
    steady = ScoreFilter(0.5, temperature=2.0).update(0.0, CALM)
    roots = np.sqrt(CALM)
    np.testing.assert_allclose(steady, roots / roots.sum(), atol=1e-12)


def test_noise_is_taken_off() -> None:
    generator = np.random.default_rng(1)
    own, before, after = ScoreFilter(0.5), [], []
    for step in range(90):
        odds = np.log(CALM) + generator.normal(0, 0.4, 3)
        scores = np.exp(odds) / np.exp(odds).sum()
        before.append(np.log(scores[0] / scores[1]))
        steady = own.update(step / 30, scores)
        after.append(np.log(steady[0] / steady[1]))
    assert np.std(after[30:]) < np.std(before[30:]) / 2.5


@pytest.mark.parametrize("rate", [10, 25, 60])
def test_a_change_shows_within_a_third_of_a_second(rate: int) -> None:
    own = ScoreFilter(0.5)
    for step in range(rate):
        own.update(step / rate, CALM)
    labels = [own.update(1 + step / rate, MERRY).argmax() for step in range(rate)]
    assert labels.index(1) / rate <= 0.3
    assert set(labels[labels.index(1) :]) == {1}


def test_it_is_the_same_at_each_frame_rate() -> None:
    ends = []
    for rate in (60, 240):
        own = ScoreFilter(0.5)
        for step in range(2 * rate):
            time = step / rate
            share = 0.5 - 0.5 * math.cos(math.pi * min(1.0, time))
            steady = own.update(time, (1 - share) * CALM + share * MERRY)
            if abs(time - 0.75) < 1e-9:
                ends.append(steady)
    np.testing.assert_allclose(*ends, atol=0.01)


def test_who_was_away_for_long_starts_anew() -> None:
    own = ScoreFilter(0.5)
    own.update(0.0, CALM)
    np.testing.assert_allclose(own.update(10.0, MERRY), MERRY, atol=1e-12)


def test_certainty_is_bounded() -> None:
    own = ScoreFilter(0.5)
    own.update(0.0, np.array([1.0, 0.0, 0.0]))
    assert np.isfinite(own.update(0.1, MERRY)).all()


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_wrong_smoothing(wrong: float) -> None:
    with pytest.raises(InputError, match="predict_video: smoothing must be None or seconds, got"):
        check_smoothing(wrong)
