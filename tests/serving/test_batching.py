"""Requests that wait are answered together, in order, whatever becomes of some of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from pcnn.errors import InputError
from pcnn.results.values import Prediction
from pcnn.serving.batching import Batcher


class SlowRecognizer:
    """Answers with pictures as wide as their bytes are many, once it may."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[int] = []

    def predict(self, images: list[bytes], *, on_error: str) -> list[Any]:
        assert on_error == "return"
        self.batches.append(len(images))
        self.begun.release()
        assert self.go.acquire(timeout=20)
        if b"fail" in images:
            raise MemoryError("too much")
        return [Prediction((), None, len(image), 1) for image in images]


@pytest.fixture
def recognizer() -> SlowRecognizer:
    return SlowRecognizer()


@pytest.fixture
def batcher(recognizer: SlowRecognizer) -> Iterator[Batcher]:
    made = Batcher(recognizer, most=4)
    yield made
    for _ in range(9):
        recognizer.go.release()
    made.close()


def _hold(batcher: Batcher, recognizer: SlowRecognizer) -> Future[Any]:
    """A first job, at which the recognizer stands."""
    first = batcher.submit([b"."])
    assert recognizer.begun.acquire(timeout=20)
    return first


def _widths(future: Future[Any]) -> list[int]:
    return [prediction.width for prediction in future.result(20)]


def test_what_waits_shares_a_batch(batcher: Batcher, recognizer: SlowRecognizer) -> None:
    first = _hold(batcher, recognizer)
    one, two = batcher.submit([b"a"]), batcher.submit([b"bb", b"ccc"])
    dropped = batcher.submit([b"dropped"])
    three, large = batcher.submit([b"dddd"]), batcher.submit([b"x"] * 6)
    dropped.cancel()
    assert batcher.waiting == 10
    for _ in range(3):
        recognizer.go.release()
    assert [_widths(each) for each in (first, one, two, three)] == [[1], [1], [2, 3], [4]]
    assert _widths(large) == [1] * 6
    assert recognizer.batches == [1, 4, 6]
    assert (batcher.batches, batcher.waiting) == (3, 0)


def test_an_error_goes_to_its_own_request_alone(
    batcher: Batcher, recognizer: SlowRecognizer
) -> None:
    first = _hold(batcher, recognizer)
    failing, beside = batcher.submit([b"fail"]), batcher.submit([b"a"])
    for _ in range(5):
        recognizer.go.release()
    assert _widths(first) == [1]
    with pytest.raises(MemoryError):
        failing.result(20)
    assert _widths(beside) == [1]
    assert _widths(batcher.submit([b"bb"])) == [2]
    assert recognizer.batches == [1, 2, 1, 1, 1] and batcher.batches == 5


def test_closing_answers_what_waits(recognizer: SlowRecognizer) -> None:
    batcher = Batcher(recognizer, most=4)
    first = _hold(batcher, recognizer)
    second = batcher.submit([b"a"])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    for _ in range(2):
        recognizer.go.release()
    assert (_widths(first), _widths(second)) == ([1], [1])
    closing.join(20)
    with pytest.raises(InputError, match="is closed"):
        batcher.submit([b"late"])


def test_a_batch_takes_at_least_one(recognizer: SlowRecognizer) -> None:
    with pytest.raises(InputError, match="most must be a whole number, got '4'"):
        Batcher(recognizer, most="4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="most must be at least 1, got 0"):
        Batcher(recognizer, most=0)


def test_a_job_given_up_frees_its_pictures_at_once(
    batcher: Batcher, recognizer: SlowRecognizer
) -> None:
    first = _hold(batcher, recognizer)
    kept, *given_up = [batcher.submit([b"a", b"b"]) for _ in range(4)]
    for each in given_up:
        assert each.cancel()
    assert batcher.waiting == 2
    for _ in range(2):
        recognizer.go.release()
    assert (_widths(first), _widths(kept)) == ([1], [1, 1])
