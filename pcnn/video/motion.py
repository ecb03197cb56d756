"""Prediction of a face's box by a Kalman filter, with time in seconds at any frame rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Shares of the face's height, equivalent to ByteTrack's filter at 30 frames a second:
_MEASURED = 1 / 20  # standard deviation of a detected box
_SURE = 0.05  # below a score of 1 − this, the deviation grows in proportion to 1 − score
_FIRST_SPEED = 2.0  # of the speed of a new face, heights a second
_ACCELERATION = 1.0  # variance that speed gains each second


class BoxMotion:
    """The box of a face with constant speed: its middle, width and height, and their speeds.

    box: x1, y1, x2, y2 in pixels.
    Source: Zhang et al. 2022 (ByteTrack), with time in seconds instead of frames.
    """

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self._place = _measures(box)  # (4,): middle x, middle y, width, height
        self._speed = np.zeros(4)  # a second
        height = self._place[3]
        # One covariance (2, 2) of place and speed for all four, because their noise is equal.
        self._covariance = np.diag([(_MEASURED * height) ** 2, (_FIRST_SPEED * height) ** 2])

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,): x1, y1, x2, y2 as last predicted or measured."""
        middle, half = self._place[:2], self._place[2:] / 2
        return np.concatenate((middle - half, middle + half))

    def predict(self, seconds: float, *, seen: bool) -> None:
        """Move the box by `seconds`. seen: False keeps the size, for a lost face."""
        if not seen:
            self._speed[2:] = 0
        self._place = self._place + seconds * self._speed
        self._place[2:] = self._place[2:].clip(min=1)
        step = np.array([[1.0, seconds], [0.0, 1.0]])
        noise = _ACCELERATION * self._place[3] ** 2
        added = np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
        self._covariance = step @ self._covariance @ step.T + noise * added

    def update(self, box: tuple[float, float, float, float], score: float) -> None:
        """Correct the box by a detection. score: of the detection, 0…1."""
        measured = _measures(box)
        # A half-hidden face has a lower score, and its box covers only the visible half.
        error = (_MEASURED * measured[3] * max(1.0, (1 - score) / _SURE)) ** 2
        gain = self._covariance[:, 0] / (self._covariance[0, 0] + error)  # (2,)
        surprise = measured - self._place
        self._place = self._place + gain[0] * surprise
        self._speed = self._speed + gain[1] * surprise
        self._covariance = self._covariance - np.outer(gain, self._covariance[0])


def _measures(box: tuple[float, float, float, float]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, max(1.0, x2 - x1), max(1.0, y2 - y1)])
