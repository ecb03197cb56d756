"""Batches worked on side by side by threads: results in order, a bounded number in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

# Held while torch's common number of threads is for a moment that of a worker.
_SHARING = threading.Lock()

# Beyond so many, threads wait for each other's Python more than they gain.
_MOST_WORKERS = 4


def worker_count(device: torch.device) -> int:
    """How many threads should work on batches side by side.

    On a CPU as many as torch may use, up to four, each with its share of them: small operations
    gain little from several threads, whole batches all there is. On a GPU two, so that pictures
    are read while others are computed.
    """
    return min(_MOST_WORKERS, torch.get_num_threads()) if device.type == "cpu" else 2


def in_order(
    batches: Iterable[_Batch], work: Callable[[_Batch], _Result], *, workers: int
) -> Iterator[_Result]:
    """What `work` makes of each batch, in order.

    batches: taken as they are needed, by the thread that takes the results. At most one more than
        `workers` of them are at hand at a time, results that nobody took included.
    work: called from `workers` threads at once, torch's threads shared out among them.
    Raises what `work` or `batches` raise, after the results of the batches before; later
    batches are then given up.
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
    """Starts all workers, each with its share of the threads that torch may use here.

    To set a thread's number sets that of threads still to come too, and they should have all:
    so the workers start together and the number is put back before any of them works.
    """
    met = threading.Barrier(workers)

    def take(share: int) -> None:
        torch.get_num_threads()  # a thread that was never asked takes the common number later
        torch.set_num_threads(max(1, share))
        met.wait()  # each share to another thread

    with _SHARING:
        threads = torch.get_num_threads()
        # The first ones get what is left over.
        shares = [threads // workers + (place < threads % workers) for place in range(workers)]
        try:
            for started in [executor.submit(take, share) for share in shares]:
                started.result()
        finally:
            met.abort()  # where a thread could not be had, the others should not wait for it
            torch.set_num_threads(threads)
