"""Deaths of workers, counted for what they were reading, so that a picture kills only a few."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from pcnn.errors import InputError
from pcnn.images.files import shown

# Pictures that a worker reads between two notes of where it is.
PICTURES_AT_ONCE = 64
# Deaths after which a picture that was read alone is left out.
MOST_DEATHS = 2


class Deaths:
    """What each worker is reading, and how many died while they read it."""

    def __init__(self) -> None:
        self._reading: dict[str, list[str]] = {}
        self._deaths: dict[str, int] = {}

    def start(self, worker: str) -> None:
        """A worker starts; if it had begun something, it died of it and was started again."""
        for key in set(self._reading.pop(worker, ())):
            self._deaths[key] = self._deaths.get(key, 0) + 1

    def begin(self, worker: str, key: str) -> int:
        """A worker begins to read; returns how many died of that."""
        self._reading.setdefault(worker, []).append(key)
        return self._deaths.get(key, 0)

    def end(self, worker: str, key: str) -> None:
        """A worker has read it. Forgets its deaths, and all of longer keys that start so."""
        reading = self._reading.get(worker, [])
        self._reading[worker] = [each for each in reading if not each.startswith(key)]
        for each in [each for each in self._deaths if each.startswith(key)]:
            del self._deaths[each]

    def forget(self, worker: str) -> None:
        """A worker lives, but has given up what it was reading, as after an exception."""
        self._reading.pop(worker, None)


class Watch(Protocol):
    """One worker's access to Deaths."""

    def start(self) -> None: ...

    def begin(self, key: str) -> int: ...

    def end(self, key: str) -> None: ...

    def forget(self) -> None: ...


class RayWatch:
    """The access of a worker that is an actor of Ray, which keeps its id when it is restarted.

    Deaths are counted in a small process that takes no core and lives as long as the job.
    ray: the module.
    """

    def __init__(self, ray: Any) -> None:
        self._actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Deaths).remote()

    def start(self) -> None:
        self._call("start")

    def begin(self, key: str) -> int:
        return int(self._call("begin", key))

    def end(self, key: str) -> None:
        self._call("end", key)

    def forget(self) -> None:
        self._call("forget")

    def _call(self, method: str, *arguments: str) -> Any:
        import ray

        worker = ray.get_runtime_context().get_actor_id()
        return ray.get(getattr(self._actor, method).remote(worker, *arguments))


def guarded(
    watch: Watch | None,
    key: str,
    pictures: Iterable[tuple[str | None, Any]],
    predict: Callable[[Iterator[Any]], Iterable[Any]],
) -> Iterator[tuple[str | None, Any]]:
    """Each picture's name with its result, even if some pictures kill the worker.

    watch: None reads without it. key: of this work, the same when it is repeated.
    pictures: names with pictures, in an order that is the same, too.
    predict: gives a result for each of some pictures.
    Pictures are read in lots of PICTURES_AT_ONCE. In a lot of which a worker died, each is read
    alone; after MOST_DEATHS of that its result is an InputError.
    """
    try:
        yield from _by_lots(watch, key, pictures, predict)
    except (Exception, GeneratorExit):  # the latter where nobody reads on
        if watch is not None:
            watch.forget()
        raise


def _by_lots(
    watch: Watch | None,
    key: str,
    pictures: Iterable[tuple[str | None, Any]],
    predict: Callable[[Iterator[Any]], Iterable[Any]],
) -> Iterator[tuple[str | None, Any]]:
    rest = iter(pictures)
    for number in itertools.count():
        lot = list(itertools.islice(rest, PICTURES_AT_ONCE))
        if not lot:
            break
        place = f"{key}/{number}/"
        if watch is None or not watch.begin(place):
            results = predict(picture for _, picture in lot)
            yield from zip((name for name, _ in lot), results, strict=True)
        else:
            yield from _one_by_one(watch, place, lot, predict)
        if watch is not None:
            watch.end(place)


def left_out(name: str, what: str) -> str:
    """The message for a picture or film that killed its workers."""
    return f"{shown(name)}: left out, as {MOST_DEATHS} workers died while they read this {what}"


def _one_by_one(
    watch: Watch,
    place: str,
    lot: list[tuple[str | None, Any]],
    predict: Callable[[Iterator[Any]], Iterable[Any]],
) -> Iterator[tuple[str | None, Any]]:
    for number, (name, picture) in enumerate(lot):
        alone = f"{place}{number}/"
        if watch.begin(alone) < MOST_DEATHS:
            (result,) = predict(iter([picture]))
            watch.end(alone)
            yield name, result
        else:  # its deaths are kept until the lot's end, as others of the lot may kill, too
            yield name, InputError(left_out(name or "picture", "picture alone"))
