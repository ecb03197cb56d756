"""CUDA graphs of a network's passes: one launch instead of hundreds.

With few faces a GPU mostly waits for the next launch. A graph launches all kernels at once, but
always reads and writes the same memory. So each of a few numbers of rows has its own graph, and
so has each size of photographs. Recording takes several passes and makes PyTorch free its cached
memory, so only repeated sizes are recorded.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

# Numbers of faces that have graphs. Other numbers use the next larger graph and ignore its last
# rows; each row depends only on its own face.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# The largest number of graphs. The first sizes that repeat get them.
MOST_KEPT = 16
# The largest number of sizes that are remembered until they repeat, the last ones.
MOST_MET = 256
# The largest difference between what other kernels compute and the plain pass, relative to the
# largest value: TF32 and 16-bit types round some tens of times, in another order.
_NEAR = 0.03

# Views (B, …) each → answers (B, …) each. A face's row depends only on its own views.
Compute: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]
_Key: TypeAlias = tuple[int, torch.dtype, tuple[torch.Size, ...]]

# Whether a thread computes for a graph. Graphs inside that work become part of it.
_thread = threading.local()
# A process may record one graph at a time.
_recording = threading.Lock()
# PyTorch before 2.12 does not recover from a failed capture: each later capture fails, or its
# memory is never freed. So a process stops recording after the first failure.
_FORGETS_FAILURES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)
# The graphs of failed captures, kept alive because that PyTorch's allocator still reads them.
_failures: list[Any] = []


class Recorder(Protocol):
    """An object that records and orders work on a device: CudaRecorder, or a test's substitute."""

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """The tensors that hold the work's results, and a function that repeats the work."""

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """A block whose work waits, on the device, for the work of all earlier blocks."""


class CudaRecorder:
    """Records work on a GPU as CUDA graphs. They share their memory, so they run one by one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None
        self._last: torch.cuda.Event | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaRecorder, (self._device,)

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """See Recorder. Raises RuntimeError: the work cannot be recorded."""
        with _recording, torch.cuda.device(self._device):
            if _failures:
                raise RuntimeError(
                    "an earlier recording failed, and PyTorch before 2.12 cannot record after that"
                )
            # Graphs of one stream share memory. The default capture stream is the first GPU's.
            self._stream = self._stream or torch.cuda.Stream()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            now = torch.cuda.current_stream()
            self._stream.wait_stream(now)
            try:
                with torch.cuda.stream(self._stream):
                    for _ in range(3):  # libraries initialise and kernels are built first
                        work()
            finally:  # the work's input must stay allocated until the work is done
                now.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with _random_numbers_apart(torch.cuda.current_device()):
                    results = self._capture(graph, work)
            except BaseException:
                if not _FORGETS_FAILURES:
                    _failures.append(graph)
                self._pool = None  # the failed graph may hold its memory
                raise
        return results, graph.replay

    def _capture(
        self, graph: torch.cuda.CUDAGraph, work: Callable[[], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        # Other threads, such as those that read pictures, may use the GPU meanwhile. The outer
        # context leaves the stream even if the inner one fails.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=self._stream,
                capture_error_mode="thread_local",
            ),
        ):
            return work()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """See Recorder."""
        stream = torch.cuda.current_stream(self._device)
        if self._last is not None:
            stream.wait_event(self._last)
        try:
            yield
        finally:
            self._last = stream.record_event()


@contextlib.contextmanager
def _random_numbers_apart(index: int) -> Iterator[None]:
    """Record the block's GPU work with a copy of the GPU's random state.

    Some versions of PyTorch register each graph with the random state. After a failed recording
    that state is unusable: drawing random numbers fails, and so do earlier graphs.
    """
    generator = torch.cuda.default_generators[index]
    own = generator.graphsafe_get_state()
    generator.graphsafe_set_state(generator.clone_state())
    try:
        yield
    finally:
        copy = generator.graphsafe_get_state()
        generator.graphsafe_set_state(own)
        generator.set_state(copy.get_state())  # keeps the numbers drawn by other threads


class CudaGraphs:
    """A function that runs by CUDA graphs; if recording fails, it warns once and runs plainly.

    A size runs plainly the first time and is recorded the second time, if fewer than MOST_MET
    other sizes came between. At most MOST_KEPT sizes are recorded, and none that lacks memory.
    compute: the plain function; it must not wait for the device. Each graph is compared with it
        once.
    sizes: numbers of rows that have graphs, ascending. More rows run as several passes.
    Several threads may use it; they take turns.
    """

    def __init__(self, compute: Compute, recorder: Recorder, sizes: Sequence[int] = SIZES) -> None:
        self._compute, self._recorder, self._sizes = compute, recorder, sizes
        self._met: dict[_Key, None] = {}  # in the order of their first passes
        self._passes: dict[_Key, _Pass | None] = {}  # None: too large for the memory
        self._turn = threading.Lock()
        self._recordable = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Arguments for a copy, also in another process. A copy records its own graphs."""
        return CudaGraphs, (self._compute, self._recorder, self._sizes)

    @torch.no_grad()
    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The answers to views (B, …), of any B, as new tensors.

        Within the work of another graph, or while the caller records one, this work is computed
        plainly and becomes part of that graph.
        The caller's autocast is ignored: its cached casts would not live as long as the graph.
        """
        chunks = zip(*(view.split(self._sizes[-1]) for view in views), strict=True)
        with torch.autocast(views[0].device.type, enabled=False):
            if getattr(_thread, "computes", False) or _caller_records(views[0]):
                return list(self._compute(views))
            _thread.computes = True
            try:
                found = [self._answer(chunk) for chunk in chunks]
            finally:
                _thread.computes = False
        if len(found) == 1:
            return list(found[0])
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _answer(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        with self._turn, self._recorder.turn():
            one = self._pass(views) if self._recordable else None
            return one.run(views) if one else self._compute(views)

    def _pass(self, views: Sequence[Tensor]) -> _Pass | None:
        """The graph for these views, recorded if their size repeats; None without a graph."""
        size = next(size for size in self._sizes if size >= len(views[0]))
        key = size, views[0].dtype, tuple(view.shape[1:] for view in views)
        if key in self._passes:
            return self._passes[key]
        if len(self._passes) >= MOST_KEPT:
            return None
        if key not in self._met:
            self._met[key] = None
            if len(self._met) > MOST_MET:
                del self._met[next(iter(self._met))]
            return None
        self._passes[key] = self._made(size, views)
        if not self._recordable:
            self._passes.clear()
        return self._passes.get(key)

    def _made(self, size: int, views: Sequence[Tensor]) -> _Pass | None:
        """A new graph for views like these; None if it is too large or recording is impossible."""
        handled = sys.exc_info()[1]  # an error that the caller handles, unrelated to errors here
        # Later calls write to these tensors again, so they must not be inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            try:
                # Compared on random numbers: answers to a picture may not be comparable.
                places = [_numbers(size, view) for view in views]
                expected = [answer.clone() for answer in self._compute(places)]
            except torch.OutOfMemoryError:
                return None
            try:
                return _Pass(self._compute, self._recorder, places, expected)
            except torch.OutOfMemoryError:
                return None
            except RuntimeError as error:
                if _lacked_memory(error, handled):
                    return None
                self._recordable = False
                warnings.warn(
                    f"pcnn: cannot record CUDA graphs ({error}): inference continues without "
                    "them, more slowly (PCNN_GRAPHS=0 turns them off)",
                    RuntimeWarning,
                    stacklevel=6,
                )
                return None


def _caller_records(view: Tensor) -> bool:
    return view.is_cuda and torch.cuda.is_current_stream_capturing()


class _Pass:
    """One recorded pass that reads its views from `places`.

    expected: the correct answers to the current views in `places`.
    Raises RuntimeError: the pass cannot be recorded, or its answers differ.
    """

    def __init__(
        self,
        compute: Compute,
        recorder: Recorder,
        places: Sequence[Tensor],
        expected: Sequence[Tensor],
    ) -> None:
        self._places = places
        self._answers, self._replay = recorder.record(lambda: compute(places))
        for answer in self._answers:
            answer.fill_(torch.nan)  # a graph without work would leave these values
        self._replay()
        if not all(map(nearly_equal, self._answers, expected)):
            raise RuntimeError("a CUDA graph gave answers that differ from the plain pass")

    def run(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the answers to views of at most as many faces."""
        count = len(views[0])
        for place, view in zip(self._places, views, strict=True):
            place[:count].copy_(view)
        self._replay()
        return [answer[:count].clone() for answer in self._answers]


def _lacked_memory(error: BaseException, handled: BaseException | None) -> bool:
    """Whether an error follows from an out-of-memory error.

    If memory runs out during a recording, the end of the recording raises a second error.
    handled: the error that was being handled before the recording started.
    """
    seen: BaseException | None = error
    while seen is not None and seen is not handled:
        if isinstance(seen, torch.OutOfMemoryError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _numbers(size: int, view: Tensor) -> Tensor:
    """Random numbers in the shape of `size` views like this one."""
    generator = torch.Generator().manual_seed(size)
    numbers = torch.randn(size, *view.shape[1:], generator=generator)
    return numbers.to(view).contiguous(memory_format=torch.channels_last)


def nearly_equal(found: Tensor, expected: Tensor) -> bool:
    """Whether two results of one computation differ by no more than rounding; no for NaN."""
    apart, largest = (found - expected).abs().amax(), expected.abs().amax()
    return bool(apart <= _NEAR * largest)


def with_cuda_graphs(
    compute: Compute, device: torch.device, sizes: Sequence[int] = SIZES
) -> Compute:
    """A function with CUDA graphs if the device is a GPU and $PCNN_GRAPHS is not 0.

    On other devices it returns `compute` itself. compute, sizes: as for CudaGraphs.
    """
    if device.type != "cuda" or os.environ.get("PCNN_GRAPHS") == "0":
        return compute
    return CudaGraphs(compute, CudaRecorder(device), sizes)


def parallel_branches(calls: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """The results of the calls; during a recording, the calls become parallel branches.

    A GPU can run branches of a graph at the same time. They are recorded on separate streams,
    whose memory is safe within a graph. Outside a recording the calls run one after another.
    """
    alone = len(calls) == 1
    if alone or device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        return [call() for call in calls]
    now = torch.cuda.current_stream()
    streams = _branches(now, len(calls))
    found = []
    begun = []
    try:
        for stream, call in zip(streams, calls, strict=True):
            stream.wait_stream(now)
            begun.append(stream)
            with torch.cuda.stream(stream):
                found.append(call())
    finally:  # the recording cannot end while a branch is not joined
        for stream in begun:
            now.wait_stream(stream)
    return found


@functools.lru_cache(maxsize=64)
def _branches(recorded: torch.cuda.Stream, count: int) -> tuple[torch.cuda.Stream, ...]:
    """Streams for the branches of a recorded stream; the same each time, as graphs share memory.

    Each recorded stream has its own branches. Two threads may record at the same time, the
    caller's graph and ours. A stream in both recordings would break both.
    """
    return tuple(torch.cuda.Stream(recorded.device) for _ in range(count))
