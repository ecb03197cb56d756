"""Ctrl-C while a film is predicted: reading ends, writing does not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from pcnn.commands.films.interruption import Interruption


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


def _frames(pressed_at: int) -> Iterator[int]:
    for number in range(5):
        if number == pressed_at:
            _press()
        yield number


def test_a_wait_for_a_frame_ends_at_once() -> None:
    usual = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert list(interruption.until_asked(_frames(2))) == [0, 1]
        with pytest.raises(KeyboardInterrupt):
            interruption.raise_if_asked()
    assert signal.getsignal(signal.SIGINT) is usual


def test_the_frame_in_hand_is_written_whole() -> None:
    written = []
    with Interruption() as interruption:
        for frame in interruption.until_asked(_frames(-1)):
            if frame == 2:
                _press()
            written.append(frame)
        with pytest.raises(KeyboardInterrupt):
            interruption.raise_if_asked()
    assert written == [0, 1, 2]


def test_a_second_one_raises_wherever_it_strikes() -> None:
    with Interruption(), pytest.raises(KeyboardInterrupt):
        _press()
        reached = True
        _press()
        reached = False
    assert reached


def test_without_one_nothing_is_raised() -> None:
    with Interruption() as interruption:
        assert list(interruption.until_asked(_frames(-1))) == [0, 1, 2, 3, 4]
        interruption.raise_if_asked()


def test_errors_of_the_film_pass_and_one_after_them_waits() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Interruption() as interruption:
        with pytest.raises(ValueError, match="broken"):
            list(interruption.until_asked(broken()))
        _press()
        assert interruption.asked


def test_other_threads_and_ignored_signals_change_nothing() -> None:
    handlers: list[object] = []

    def use() -> None:
        with Interruption():
            handlers.append(signal.getsignal(signal.SIGINT))

    usual = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        use()
    finally:
        signal.signal(signal.SIGINT, usual)
    assert handlers == [usual, signal.SIG_IGN]
