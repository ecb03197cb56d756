"""Batches worked on side by side by threads: results in order, a bounded number in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Batch = TypeVar("_Batch")
_Result = TypeVar("_Result")

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
    Raises what `work` raises, when its turn comes; later batches are then given up.
    """
    threads = torch.get_num_threads()
    executor = ThreadPoolExecutor(
        workers, "pcnn", initializer=torch.set_num_threads, initargs=(max(1, threads // workers),)
    )
    waiting: deque[Future[_Result]] = deque()
    try:
        for batch in batches:
            waiting.append(executor.submit(work, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
        # What a thread sets for itself also becomes the number for threads still to come.
        torch.set_num_threads(threads)
