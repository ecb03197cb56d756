"""A picture that kills its worker is left out after a few deaths; the others are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pcnn.distributed import deaths
from pcnn.distributed.deaths import Deaths, guarded
from pcnn.errors import InputError

WORKER = "the actor's id, the same after a restart"


class DeathError(BaseException):
    """In place of a signal that ends the process."""


class Here:
    """Deaths of this process, without a cluster."""

    def __init__(self) -> None:
        self.deaths = Deaths()

    def start(self) -> None:
        self.deaths.start(WORKER)

    def begin(self, key: str) -> int:
        return self.deaths.begin(WORKER, key)

    def end(self, key: str) -> None:
        self.deaths.end(WORKER, key)

    def forget(self) -> None:
        self.deaths.forget(WORKER)


def read_again_until_it_ends(
    pictures: list[str], killing: dict[str, int]
) -> tuple[list[tuple[str, Any]], list[list[str]]]:
    """The results, and what each life of the worker was given.

    killing: names of pictures, and how often each kills the worker.
    """
    watch, lives, left = Here(), [], dict(killing)

    def predict(some: Iterator[Any]) -> Iterator[Any]:
        for picture in some:
            lives[-1].append(picture)
            if left.get(picture):
                left[picture] -= 1
                raise DeathError
            yield picture.upper()

    for _ in range(20):
        lives.append([])
        watch.start()
        try:
            found = list(guarded(watch, "work", ((name, name) for name in pictures), predict))
        except DeathError:
            continue
        assert not watch.deaths._deaths and not watch.deaths._reading[WORKER], "all is forgotten"
        return found, lives
    pytest.fail("it goes on for ever")


@pytest.fixture(autouse=True)
def _lots_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deaths, "PICTURES_AT_ONCE", 3)


def test_without_a_death_all_are_read_once() -> None:
    found, lives = read_again_until_it_ends(list("abcdefg"), {})
    assert found == [(name, name.upper()) for name in "abcdefg"]
    assert lives == [list("abcdefg")]


def test_a_picture_that_always_kills_is_left_out() -> None:
    found, lives = read_again_until_it_ends(list("abcdefg"), {"e": 99})
    assert [name for name, _ in found] == list("abcdefg")
    error = found[4][1]
    assert isinstance(error, InputError)
    assert str(error) == "e: left out, as 2 workers died while they read this picture alone"
    assert [result for name, result in found if name != "e"] == list("ABCDFG")
    # Once with the others of its lot, twice alone, then no more.
    assert lives == [list("abcde"), list("abcde"), list("abcde"), list("abcdfg")]


def test_two_that_kill_in_one_lot() -> None:
    found, lives = read_again_until_it_ends(list("abc"), {"a": 99, "b": 99})
    assert [type(result) for _, result in found] == [InputError, InputError, str]
    assert len(lives) == 6 and lives[-1] == ["c"]


def test_a_worker_that_is_killed_from_outside_costs_no_picture() -> None:
    found, lives = read_again_until_it_ends(list("abcdef"), {"b": 2})
    assert found == [(name, name.upper()) for name in "abcdef"]
    assert lives == [list("ab"), list("ab"), list("abcdef")]


def test_deaths_of_one_worker_are_not_those_of_its_neighbour() -> None:
    both = Deaths()
    for worker in ("one", "other"):
        both.start(worker)
        assert both.begin(worker, "same/") == 0, "reading the same at a time is no death"
    both.start("one")
    assert both.begin("one", "same/") == 1
    both.end("one", "same/")
    assert both.begin("one", "same/") == 0
    both.end("new", "never begun/")


def test_exceptions_and_readers_who_stop_are_no_deaths() -> None:
    """A worker that lives on has not died of what it gave up."""
    watch = Here()

    def fails(some: Iterator[Any]) -> Iterator[Any]:
        yield next(some)
        raise OSError("the disk is gone")

    pictures = [("a", "a"), ("b", "b")]
    for _ in range(3):
        watch.start()
        with pytest.raises(OSError, match="the disk is gone"):
            list(guarded(watch, "work", pictures, fails))
        unread = guarded(watch, "work", pictures, lambda some: some)
        assert next(unread) == ("a", "a")
        unread.close()
    watch.start()
    assert watch.begin("work/0/") == 0
