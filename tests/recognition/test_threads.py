"""Batches side by side: results in order, a bounded number at hand, threads shared out."""

from __future__ import annotations

import io
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pcnn.errors import InputError
from pcnn.images import loading as images
from pcnn.recognition import batches as pictures
from pcnn.recognition.batches import Picture, process_each
from pcnn.recognition.threads import in_order, worker_count


def test_results_come_in_order_whatever_takes_longest() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    assert list(in_order(range(20), work, workers=3)) == [n * n for n in range(20)]
    assert list(in_order([], work, workers=3)) == []


def test_batches_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(batches(), lambda number: number, workers=2)
    for seen in range(50):
        assert next(results) == seen
        assert len(taken) <= seen + 3
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 60


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        done.append(number)
        return number

    results = in_order(range(100), work, workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(done) < 8


def test_an_error_of_the_source_comes_after_the_results() -> None:
    def source() -> Iterator[NDArray[np.uint8]]:
        for number in range(20):
            yield _image(number)
        raise OSError("the disk is gone")

    results = _each(source())
    assert [next(results) for _ in range(20)] == list(range(20))
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


@pytest.fixture
def eleven_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(11)
    yield
    torch.set_num_threads(before)


def _threads_of_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.mark.usefixtures("eleven_threads")
def test_workers_share_out_torchs_threads() -> None:
    seen: dict[str, int] = {}
    met = threading.Barrier(4, timeout=10)

    def work(_: int) -> None:
        met.wait()  # so that all workers have their turn
        seen[threading.current_thread().name] = torch.get_num_threads()

    list(in_order(range(8), work, workers=4))
    assert sorted(seen.values()) == [2, 3, 3, 3]
    assert torch.get_num_threads() == _threads_of_a_new_thread() == 11


@pytest.mark.usefixtures("eleven_threads")
def test_streams_leave_other_threads_theirs() -> None:
    """While they run, where they overlap, and where the number is changed meanwhile."""
    first = in_order(range(100), lambda number: number, workers=4)
    assert next(first) == 0 and _threads_of_a_new_thread() == 11
    second = in_order(range(100), lambda number: number, workers=2)
    assert next(second) == 0 and _threads_of_a_new_thread() == 11
    torch.set_num_threads(5)
    first.close()  # type: ignore[attr-defined]
    second.close()  # type: ignore[attr-defined]
    assert torch.get_num_threads() == _threads_of_a_new_thread() == 5


def test_as_many_workers_as_threads_up_to_four() -> None:
    before = torch.get_num_threads()
    try:
        for threads, workers in ((1, 1), (2, 2), (4, 4), (9, 4)):
            torch.set_num_threads(threads)
            assert worker_count(torch.device("cpu")) == workers
        assert worker_count(torch.device("cuda")) == 2
    finally:
        torch.set_num_threads(before)


def _image(value: int, side: int = 4) -> NDArray[np.uint8]:
    return np.full((side, side, 3), value, np.uint8)


def _values(batch: list[Picture]) -> list[int]:
    return [int(picture.pixels[0, 0, 0]) for picture in batch]


def _each(images: Any, process: Any = _values, **options: Any) -> Any:
    device = torch.device("cuda")  # two workers, whatever the processor
    chosen = {"step": 3, "device": device, "bgr": False, "on_error": "raise", **options}
    return process_each(images, process, **chosen)


def test_one_picture_many_and_an_endless_stream() -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        number = 0
        while True:
            yield _image(number % 251)
            number += 1

    assert _each(_image(7)) == 7
    assert _each([_image(n) for n in range(20)]) == list(range(20))
    assert _each((_image(1), _image(2))) == [1, 2]
    assert _each([]) == [] and list(_each(iter([]))) == []
    results = _each(endless())
    assert [next(results) for _ in range(300)] == [n % 251 for n in range(300)]
    results.close()


def test_an_open_file_is_one_picture() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(file, "PNG")
    assert _each(file) == 9


def test_errors_keep_their_places_in_a_stream() -> None:
    given = [_image(1), "missing.png", _image(3), _image(4), "gone.jpg"]
    results = list(_each(iter(given), on_error="return"))
    assert [results[i] for i in (0, 2, 3)] == [1, 3, 4]
    assert [str(results[i]) for i in (1, 4)] == [
        "missing.png: no such file",
        "gone.jpg: no such file",
    ]
    stream = _each(iter(given))
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        list(stream)
    with pytest.raises(InputError, match=r"on_error must be 'raise' or 'return', got 'skip'"):
        _each(iter(given), on_error="skip")


def test_lists_are_shared_out_but_not_too_finely() -> None:
    sizes: list[int] = []

    def process(batch: list[Picture]) -> list[int]:
        sizes.append(len(batch))
        return _values(batch)

    for count, expected in ((3, [3]), (6, [2, 4]), (12, [6, 6]), (20, [4, 8, 8])):
        sizes.clear()
        assert _each([_image(n) for n in range(count)], process, step=8) == list(range(count))
        assert sorted(sizes) == expected


class _Held(Picture):
    """Counts the pictures that are alive."""

    alive: ClassVar[weakref.WeakSet[_Held]] = weakref.WeakSet()
    most = 0

    def __init__(self, image: Any, bgr: bool, name: str) -> None:
        super().__init__(image, bgr, name)
        self.alive.add(self)
        _Held.most = max(_Held.most, len(self.alive))


def test_large_pictures_go_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_PIXELS_AT_ONCE", 100)
    monkeypatch.setattr(pictures, "Picture", _Held)
    sizes: list[int] = []

    def process(batch: list[Picture]) -> list[int]:
        sizes.append(len(batch))
        return _values(batch)

    sides = [9, 9, 12, 2, 2, 12, 9]  # 81 + 81; 144; 4 + 4 + 144; 81 pixels
    large = [_image(n, side) for n, side in enumerate(sides)]
    assert _each(large, process, step=7, device=torch.device("cpu")) == list(range(7))
    assert sizes == [2, 1, 3, 1]
    assert _Held.most == 3, "none of a group is held while the next is read"


def test_warning_filters_survive_threads_within_each_other() -> None:
    before = list(warnings.filters)
    images._quiet.__enter__()
    assert warnings.filters != before
    images._quiet.__enter__()
    images._quiet.__exit__()
    assert warnings.filters != before
    images._quiet.__exit__()
    assert warnings.filters == before


def test_warning_filters_of_others_survive() -> None:
    before = list(warnings.filters)
    images._quiet.__enter__()  # a worker begins to read
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        images._quiet.__exit__()  # and has read
        assert warnings.filters[0][0] == "always"
        kept = list(warnings.filters)
        with images._quiet:
            pass
        assert warnings.filters == kept
    with images._quiet:
        pass
    assert warnings.filters == before
