"""Ctrl-C while a film is predicted: the only end of an endless one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TypeVar

_Item = TypeVar("_Item")


class Interruption:
    """A context in which Ctrl-C ends the reading of a film, but no writing.

    The first one ends `until_asked` at once if it waits for the next frame, else after the frame in
    hand; what is written then is whole. A second one raises KeyboardInterrupt wherever it strikes.
    Outside the main thread, and where SIGINT is ignored, nothing changes.
    asked: True after the first.
    """

    def __init__(self) -> None:
        self.asked = False
        self._waits = False
        self._usual: Any = None

    def __enter__(self) -> Interruption:
        usual = signal.getsignal(signal.SIGINT)
        if callable(usual) and threading.current_thread() is threading.main_thread():
            self._usual = usual
            signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)

    def until_asked(self, frames: Iterator[_Item]) -> Iterator[_Item]:
        """The frames, up to the first Ctrl-C."""
        while not self.asked:
            try:
                try:
                    self._waits = True
                    frame = next(frames)
                finally:
                    self._waits = False
            except StopIteration:
                return
            except KeyboardInterrupt:
                self._waits = False  # struck before the line above
                self.asked = True
                return
            yield frame

    def raise_if_asked(self) -> None:
        """Raises KeyboardInterrupt: there was one."""
        if self.asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        raises = self._waits or self.asked
        self.asked = True
        if raises:
            self._usual(number, frame)
