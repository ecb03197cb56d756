"""Requests that wait are answered together: one recognizer, one thread that feeds it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from pcnn.errors import InputError, check_count
from pcnn.results.values import Prediction

Results: TypeAlias = list["Prediction | InputError"]


class Predictor(Protocol):
    """What a Recognizer does for a server."""

    def predict(self, images: list[Any], *, on_error: Literal["return"]) -> Results:
        """As Recognizer.predict."""


class _Job(NamedTuple):
    pictures: Sequence[bytes]
    future: Future[Results]


class Batcher:
    """Takes pictures of many requests and predicts those that wait together.

    recognizer: called by one thread of the batcher's own.
    most: pictures that a batch takes at most, unless a single request has more.
    Safe to use from several threads. Close it, or it holds up the end of the process.
    """

    def __init__(self, recognizer: Predictor, *, most: int) -> None:
        check_count("Batcher", "most", most)
        self._recognizer, self._most = recognizer, most
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.batches = 0
        self._thread = threading.Thread(target=self._run, name="pcnn-serve")
        self._thread.start()

    def submit(self, pictures: Sequence[bytes]) -> Future[Results]:
        """The results of some pictures, in their order, errors in their places.

        A future that is cancelled before its turn costs nothing.
        Raises InputError: the batcher is closed.
        """
        future: Future[Results] = Future()
        with self._changed:
            if self._closed:
                raise InputError("Batcher.submit: is closed")
            self._waiting.append(job := _Job(pictures, future))
            self._changed.notify()
        future.add_done_callback(lambda _: self._forget(job))
        return future

    def _forget(self, job: _Job) -> None:
        """Free the pictures of a job that was cancelled before its turn."""
        if job.future.cancelled():
            with self._changed, contextlib.suppress(ValueError):
                self._waiting.remove(job)

    @property
    def waiting(self) -> int:
        """Pictures that wait for their turn."""
        with self._changed:
            return sum(len(job.pictures) for job in self._waiting)

    def close(self) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while jobs := self._next():
            self._answer(jobs)

    def _answer(self, jobs: list[_Job]) -> None:
        """Answer jobs together, or each alone where that fails: another's may be the reason."""
        self.batches += 1
        answers = None
        try:
            pictures = [picture for job in jobs for picture in job.pictures]
            results = iter(self._recognizer.predict(pictures, on_error="return"))
            answers = [[next(results) for _ in job.pictures] for job in jobs]
        except BaseException as error:  # whatever it is, its request reports it
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
        # The error is gone by now, and with it what its traceback held of the failed pass.
        if answers is not None:
            for job, answer in zip(jobs, answers, strict=True):
                job.future.set_result(answer)
        elif len(jobs) > 1:
            for job in jobs:
                self._answer([job])

    def _next(self) -> list[_Job]:
        """The jobs of the next batch; none when the batcher is closed and all are answered."""
        jobs: list[_Job] = []
        count = 0
        with self._changed:
            while not jobs:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return []
                while self._waiting:
                    if jobs and count + len(self._waiting[0].pictures) > self._most:
                        break
                    job = self._waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        jobs.append(job)
                        count += len(job.pictures)
        return jobs
