"""Expressions as subtitles: a line for each person, new where an expression changes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import NamedTuple

from pcnn.results.frames import Frame

_USUAL_STEP_S = 0.04  # how long the only frame of a film is shown


class Cue(NamedTuple):
    """Text with the seconds from and to which it is shown."""

    begin: float
    end: float
    text: str


class Subtitles:
    """Gathers a film's cues. Frames are shown until the next one."""

    def __init__(self) -> None:
        self._cues: list[Cue] = []
        self._begin, self._text = 0.0, ""
        self._last: float | None = None
        self._step = _USUAL_STEP_S

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        text = "\n".join(f"{face.track}: {face.label}" for face in frame.faces)
        if self._last is not None and frame.time > self._last:
            self._step = frame.time - self._last
        self._last = frame.time
        if text != self._text:
            self._end_cue(frame.time)
            self._begin, self._text = frame.time, text

    def cues(self) -> list[Cue]:
        """All so far, the one that is shown until the end of the last frame included."""
        if self._last is None or not self._text:
            return list(self._cues)
        return [*self._cues, Cue(self._begin, self._last + self._step, self._text)]

    def srt(self) -> str:
        """The cues as SubRip text."""
        return "".join(
            f"{number}\n{_span(cue, ',')}\n{cue.text}\n\n"
            for number, cue in enumerate(self.cues(), 1)
        )

    def webvtt(self) -> str:
        """The cues as WebVTT (W3C). A label's < and & are escaped, as they would begin a tag."""
        lines = (f"{_span(cue, '.')}\n{escape(cue.text, quote=False)}\n\n" for cue in self.cues())
        return "WEBVTT\n\n" + "".join(lines)

    def _end_cue(self, time: float) -> None:
        if self._text:
            self._cues.append(Cue(self._begin, time, self._text))


# What each kind of file holds, by the end of its name.
SUBTITLE_KINDS: dict[str, Callable[[Subtitles], str]] = {
    ".srt": Subtitles.srt,
    ".vtt": Subtitles.webvtt,
}


def _span(cue: Cue, point: str) -> str:
    return f"{_clock(cue.begin, point)} --> {_clock(cue.end, point)}"


def _clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds, thousandths."""
    thousandths = round(1000 * seconds)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
