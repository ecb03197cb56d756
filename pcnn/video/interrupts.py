"""Ctrl-C while PyAV reads from a Python file, where it would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

_Result = TypeVar("_Result")


class _Thread(threading.local):
    """State of a thread. struck: an interrupt is on its way through PyAV."""

    struck = False


_thread = _Thread()


class _StandIn(Exception):  # noqa: N818  (no error: it stands for a KeyboardInterrupt)
    """Stands for a KeyboardInterrupt, where only an Exception gets through."""


def struck() -> bool:
    """Whether Ctrl-C has ended the current call of `interruptible`, in this thread.

    FFmpeg may ask for more bytes all the same: a file that waits for them must then give none.
    """
    return _thread.struck


def interruptible(call: Callable[[], _Result]) -> _Result:
    """The result of a call of PyAV that may read from a Python file.

    PyAV carries an Exception of the file's `read` to its own caller, but prints and forgets a
    KeyboardInterrupt: the film would go on, or wait for ever. Here another exception takes its
    place until PyAV has returned. Only the main thread hears of signals; in others, and where
    SIGINT has no handler of Python, this is a plain call.
    Raises KeyboardInterrupt: the handler of SIGINT did.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        return call()

    def stand_in(number: int, frame: FrameType | None) -> None:
        if _thread.struck:
            return
        try:
            usual(number, frame)
        except KeyboardInterrupt:
            _thread.struck = True
            raise _StandIn from None

    try:
        try:
            signal.signal(signal.SIGINT, stand_in)
            result = call()
        finally:
            signal.signal(signal.SIGINT, usual)
        if _thread.struck:  # the file's own `read` has caught the stand-in
            raise _StandIn
        return result
    except _StandIn:
        signal.signal(signal.SIGINT, usual)  # it may have struck just before that
        raise KeyboardInterrupt from None
    finally:
        _thread.struck = False
