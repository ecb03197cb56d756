"""Smoothing of one person's scores over time, with little delay for quick changes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pcnn.errors import InputError, is_number

SMOOTHING_S = 0.5  # time constant of a face that does not change
# Means of several frames are surer than calibrated scores say: benchmarks/steady_scores.py fits it.
STEADY_TEMPERATURE = 0.99
_QUICKER = 0.05  # Hz that the filter's cutoff gains for each unit of log-odds a second
_SPEED_S = 0.2  # time constant of that speed's own filter
_LEAST = 1e-4  # smaller probabilities are treated as this
# After this number of time constants without the face, the filter restarts.
_FORGOTTEN = 4.0


def check_smoothing(smoothing: float | None) -> None:
    """Raise InputError unless smoothing is None or a number of seconds above 0."""
    if smoothing is not None and (not is_number(smoothing) or not 0 < smoothing < math.inf):
        raise InputError(
            f"Recognizer.predict_video: smoothing must be None or seconds, got {smoothing!r}"
        )


class ScoreFilter:
    """A one-euro filter of one face's probabilities from frame to frame.

    seconds: the time constant for constant scores. Smoothed scores lag behind by it; quickly
        changing scores lag much less.
    temperature: divides the smoothed log-odds, to calibrate them again.
    The filter uses log-odds and seconds, so it does not depend on the frame rate.
    Source: Casiez et al. 2012, with one cutoff for all classes of a face.
    """

    def __init__(self, seconds: float, temperature: float = 1.0) -> None:
        self._slowest = 1 / (2 * math.pi * seconds)  # Hz
        self._forgotten = _FORGOTTEN * seconds
        self._temperature = temperature
        self._time: float | None = None
        self._steady: NDArray[np.float64] = np.empty(0)
        self._before: NDArray[np.float64] = np.empty(0)  # log-odds of the frame before
        self._speed: NDArray[np.float64] = np.empty(0)

    def update(self, time: float, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The smoothed probabilities (classes,) of the next frame.

        time: seconds, later than in the last call. scores: (classes,) probabilities of this frame.
        """
        odds = np.log(np.maximum(scores, _LEAST))
        odds -= odds.mean()
        seconds = math.inf if self._time is None else time - self._time
        self._time = time
        if seconds > self._forgotten:
            self._steady, self._speed = odds, np.zeros_like(odds)
        else:
            speed = (odds - self._before) / seconds
            self._speed = self._speed + _share(seconds, _SPEED_S) * (speed - self._speed)
            cutoff = self._slowest + _QUICKER * float(np.abs(self._speed).max())
            share = _share(seconds, 1 / (2 * math.pi * cutoff))
            self._steady = self._steady + share * (odds - self._steady)
        self._before = odds
        powers = np.exp((self._steady - self._steady.max()) / self._temperature)
        steady: NDArray[np.float64] = powers / powers.sum()
        return steady


def _share(seconds: float, constant: float) -> float:
    """The weight of a filter's input after `seconds`, for a time constant."""
    return -math.expm1(-seconds / constant)
