"""Digits of results where they are written: later ones differ between machines.

A run that is resumed from its rows goes on from numbers rounded in this way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

_Box = tuple[float, float, float, float]


def pixels(value: float) -> float:
    """A coordinate with 2 decimals, finer than the detector's precision."""
    return round(float(value), 2)


def degrees(value: float) -> float:
    """An angle with 2 decimals."""
    return round(float(value), 2)


def probability(value: float) -> float:
    """A probability or a detection score with 6 decimals."""
    return round(float(value), 6)


def share(value: float) -> float:
    """A movement or a quality, 0…1, with 4 decimals."""
    return round(float(value), 4)


def seconds(value: float) -> float:
    """A time with 6 decimals."""
    return round(float(value), 6)


def number(value: float) -> float:
    """A number of a ValueHead, of any size, with 6 significant digits."""
    return float(f"{value:.6g}")


def probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores with 6 decimals each, in order."""
    return {name: probability(score) for name, score in scores.items()}


def box(edges: _Box) -> _Box:
    """The edges x1, y1, x2, y2 of a box with 2 decimals each."""
    left, top, right, bottom = edges
    return pixels(left), pixels(top), pixels(right), pixels(bottom)


def points(places: Iterable[Iterable[float]]) -> list[list[float]]:
    """Places [x, y] with 2 decimals each."""
    return [[pixels(x), pixels(y)] for x, y in places]


def landmarks(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Landmarks (5, 2) with 2 decimals each, as far as float32 has them."""
    return np.array(points(places), np.float32)
