"""Ctrl-C while PyAV reads from a Python file, where it would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

_Result = TypeVar("_Result")


class _Thread(threading.local):
    """State of a thread. held: what the handler of SIGINT raised while PyAV was at work."""

    held: BaseException | None = None


_thread = _Thread()


def struck() -> bool:
    """Whether Ctrl-C shall end the current call of `interruptible`, in this thread.

    FFmpeg may ask for more bytes all the same: a file that waits for them must then give none.
    """
    return _thread.held is not None


def interruptible(call: Callable[[], _Result]) -> _Result:
    """The result of a call of PyAV that may read from a Python file.

    PyAV prints and forgets a KeyboardInterrupt in the file's `read`: the film would go on, or wait
    for ever. Other exceptions there have ended the process. So what the handler of SIGINT raises
    is held until PyAV has returned. Only the main thread hears of signals; in others, and where
    SIGINT has no handler of Python, this is a plain call.
    Raises KeyboardInterrupt: the handler of SIGINT did.
    """
    usual = signal.getsignal(signal.SIGINT)
    if not callable(usual) or threading.current_thread() is not threading.main_thread():
        return call()

    def hold(number: int, frame: FrameType | None) -> None:
        if _thread.held is None:
            try:
                usual(number, frame)
            except BaseException as error:
                _thread.held = error

    _thread.held = None
    try:
        signal.signal(signal.SIGINT, hold)
        return call()
    finally:
        signal.signal(signal.SIGINT, usual)
        held, _thread.held = _thread.held, None
        if held is not None:
            raise held
