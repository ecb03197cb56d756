"""Parallel processing of batches by threads, with ordered results and bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

# Held while torch's default number of threads has temporarily a worker's value.
_SHARING = threading.Lock()

_LONGEST_END_S = 1.0

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
    started: list[int] = []
    try:
        _share_out_threads(executor, workers, started)
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
        _wait_for_ends(started)


def _wait_for_ends(threads: list[int]) -> None:
    """Wait until the system has ended threads that Python has ended, by their native numbers.

    A thread that ends returns its memory to MKL under a lock. A process forked in that moment would
    wait for the lock for ever.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():  # no Linux
        return
    latest = time.monotonic() + _LONGEST_END_S
    while any((tasks / str(thread)).exists() for thread in threads):
        if time.monotonic() > latest:
            return
        time.sleep(1e-4)


def _share_out_threads(executor: ThreadPoolExecutor, workers: int, started: list[int]) -> None:
    """Start all workers, each with its share of torch's threads.

    started: receives the native numbers of the threads.
    A thread that sets its number also changes the default of later threads, which should keep the
    full number. So all workers start together, and the default is restored before they work.
    """
    met = threading.Barrier(workers)

    def take(share: int) -> None:
        torch.get_num_threads()  # fixes this thread's number, else it takes the default later
        torch.set_num_threads(max(1, share))
        started.append(threading.get_native_id())
        met.wait()  # so that each share goes to another thread

    with _SHARING:
        threads = torch.get_num_threads()
        # The first workers get the remainder.
        shares = [threads // workers + (place < threads % workers) for place in range(workers)]
        try:
            for taken in [executor.submit(take, share) for share in shares]:
                taken.result()
        finally:
            met.abort()  # if a thread could not start, the others must not wait for it
            torch.set_num_threads(threads)
