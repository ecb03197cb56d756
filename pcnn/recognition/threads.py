"""Parallel processing of batches by threads, with ordered results and bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

# Held while torch's default number of threads has temporarily a worker's value.
_SHARING = threading.Lock()

# With more threads the waiting for Python's global lock costs more than they gain.
_MOST_WORKERS = 4


def worker_count(device: torch.device) -> int:
    """The number of threads that process batches in parallel.

    On a CPU this is torch's number of threads, at most four. Each worker gets its share of torch's
    threads, because small operations gain little from several threads. On a GPU it is two, so
    that pictures are loaded while others are computed.
    """
    return min(_MOST_WORKERS, torch.get_num_threads()) if device.type == "cpu" else 2


def in_order(
    batches: Iterable[_Batch], work: Callable[[_Batch], _Result], *, workers: int
) -> Iterator[_Result]:
    """The results of `work` for each batch, in order.

    batches: read when needed, in the thread that takes the results. At most `workers` + 1 batches
        are in memory, including results not taken yet.
    work: called from `workers` threads at the same time; they share torch's threads.
    Raises the errors of `work` and `batches`, after the results of earlier batches. Later batches
        are then cancelled.
    """
    waiting: deque[Future[_Result]] = deque()
    failure: Exception | None = None
    source = iter(batches)
    executor = ThreadPoolExecutor(workers, "pcnn")
    try:
        _share_out_threads(executor, workers)
        while True:
            try:
                batch = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(executor.submit(work, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        executor.shutdown(cancel_futures=True)


def _share_out_threads(executor: ThreadPoolExecutor, workers: int) -> None:
    """Start all workers, each with its share of torch's threads.

    A thread that sets its number also changes the default of later threads, which should keep the
    full number. So all workers start together, and the default is restored before they work.
    """
    met = threading.Barrier(workers)

    def take(share: int) -> None:
        torch.get_num_threads()  # fixes this thread's number, else it takes the default later
        torch.set_num_threads(max(1, share))
        met.wait()  # so that each share goes to another thread

    with _SHARING:
        threads = torch.get_num_threads()
        # The first workers get the remainder.
        shares = [threads // workers + (place < threads % workers) for place in range(workers)]
        try:
            for started in [executor.submit(take, share) for share in shares]:
                started.result()
        finally:
            met.abort()  # if a thread could not start, the others must not wait for it
            torch.set_num_threads(threads)
