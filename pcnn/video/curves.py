"""Curves of a film's people laid on a time axis, for the picture and the page."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pcnn.video.summaries import TrackSummary

MOST_PEOPLE = 40  # shown; of more, those that were seen longest
_GAP_S = 1.0  # a face that was away for longer leaves a gap
_GAP_STEPS = 2.5  # or for so many times the usual step
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_TICKS = 10


def shown_people(tracks: Sequence[TrackSummary]) -> list[TrackSummary]:
    """Those of MOST_PEOPLE that were seen longest, by track."""
    longest = sorted(tracks, key=lambda person: -person.seconds)[:MOST_PEOPLE]
    return sorted(longest, key=lambda person: person.track)


def segments(person: TrackSummary) -> list[slice]:
    """The bins of a curve in pieces, between which the face was away."""
    steps = np.diff(person.times)
    usual = float(np.median(steps)) if len(steps) else person.bin_s
    cuts = np.flatnonzero(steps > max(_GAP_S, _GAP_STEPS * usual)) + 1
    edges = [0, *cuts.tolist(), len(person.times)]
    return [slice(begin, end) for begin, end in itertools.pairwise(edges)]


def sampled(person: TrackSummary, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, classes) scores at times (K,); 0 where the face was away."""
    rows = np.zeros((len(times), person.curve.shape[1]))
    half = person.bin_s / 2
    for piece in segments(person):
        own, curve = person.times[piece], person.curve[piece]
        inside = (times >= own[0] - half) & (times <= own[-1] + half)
        for index in range(curve.shape[1]):
            rows[inside, index] = np.interp(times[inside], own, curve[:, index])
    return rows


def axis_ticks(begin: float, end: float) -> list[tuple[float, str]]:
    """Seconds and what to write there, at most about ten."""
    length = max(end - begin, 1e-6)
    longest = _STEPS_S[-1] * np.ceil(length / _TICKS / _STEPS_S[-1])
    step = next((each for each in _STEPS_S if length / each <= _TICKS), longest)
    first, last = int(np.ceil(begin / step)), int(np.floor(end / step + 1e-6))
    return [(number * step, clock(number * step, step)) for number in range(first, last + 1)]


def clock(seconds: float, step: float = 1.0) -> str:
    """Time as people write it: 0:04 or 1:05:00. step: less than 1 shows tenths, as in 0:04.2."""
    tenths = round(10 * seconds) if step < 1 else 10 * round(seconds)
    whole = tenths // 10
    hours, minutes = whole // 3600, whole // 60 % 60
    begin = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{begin}:{whole % 60:02}" + (f".{tenths % 10}" if step < 1 else "")


def told_shares(person: TrackSummary, most: int = 3) -> str:
    """The shares of time in words: happiness 72 %, neutral 28 %."""
    shares = list(person.shares.items())[:most]
    return ", ".join(f"{name} {share:.0%}" for name, share in shares)
