"""Ctrl-C while PyAV reads from a Python file."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from films import shades, write_film

from pcnn.video.decoding import FilmReader
from pcnn.video.interrupts import interruptible, struck

COUNT = 60  # frames, more than PyAV reads to open a film

pytestmark = pytest.mark.filterwarnings("error")


class _Pipe:
    """The bytes of a film as from a pipe that is interrupted once they are read."""

    def __init__(self, film: bytes) -> None:
        self._film, self.reads_after = film, 0

    def read(self, size: int) -> bytes:
        if not self._film:
            assert not struck()  # else a real pipe would wait for ever
            signal.raise_signal(signal.SIGINT)
            assert struck()
            self.reads_after += 1
        data, self._film = self._film[:size], self._film[size:]
        return data


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_film(tmp_path_factory.mktemp("films") / "grey.mkv", shades(COUNT)).read_bytes()


@pytest.mark.parametrize("part", [0, 300, None])
def test_ctrl_c_within_a_read_is_no_end_of_the_film(
    part: int | None, film: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = _Pipe(film[:part])
    usual = signal.getsignal(signal.SIGINT)
    count = 0
    with pytest.raises(KeyboardInterrupt):
        for _ in FilmReader(pipe):
            count += 1
    assert pipe.reads_after == 1  # the one that was interrupted
    assert (count > 0) == (part is None)
    assert signal.getsignal(signal.SIGINT) is usual
    assert not struck()
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name == "nt", reason="select of Windows knows no pipes")
def test_standard_input_hears_ctrl_c(film: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    outlet, inlet = os.pipe()
    with os.fdopen(outlet) as stdin, os.fdopen(inlet, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", stdin)
        pipe.write(film)  # and it stays open
        frames = iter(FilmReader("-"))
        times = [next(frames).time for _ in range(5)]
        with pytest.raises(KeyboardInterrupt):
            # Before the wait for the pipe or within it: nothing else ends that.
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            times += [frame.time for frame in frames]
    assert times == pytest.approx([number / 15 for number in range(len(times))], abs=1e-3)


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from pcnn import InputError

    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: it is closed"):
        FilmReader("-")


def test_a_handler_that_does_not_raise_goes_on() -> None:
    heard = []
    usual = signal.signal(signal.SIGINT, lambda *_: heard.append(struck()))
    try:
        assert interruptible(lambda: [signal.raise_signal(signal.SIGINT), 7]) == [None, 7]
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [False]


def test_only_the_first_of_two_counts_within_a_call() -> None:
    heard = []

    def handler(*_: object) -> None:
        heard.append(struck())
        raise KeyboardInterrupt

    def call() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)  # nothing is raised here, within PyAV
            assert struck()
        raise ValueError  # as PyAV does where a file ends too early

    usual = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(call)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [False] and not struck()


def test_other_threads_and_ignored_signals_have_plain_calls() -> None:
    def call() -> object:
        return signal.getsignal(signal.SIGINT)

    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(interruptible(call)))
    thread.start()
    thread.join()
    assert results == [signal.getsignal(signal.SIGINT)]
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interruptible(call) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)


def test_films_of_files_are_read_as_ever(film: bytes, tmp_path: Path) -> None:
    path = tmp_path / "grey.mkv"
    path.write_bytes(film)
    assert sum(1 for _ in FilmReader(path)) == COUNT
