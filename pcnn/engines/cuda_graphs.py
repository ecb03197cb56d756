"""A network's pass on a GPU as one CUDA graph: hundreds of launches become one.

For a few faces a GPU waits for its orders most of the time. A graph gives them all at once, but
reads and writes the same memory always: so there is one for each of a few numbers of rows, and
of photographs for each size. To record one takes several passes and has PyTorch give back the
memory that it keeps, so it is done for what comes again.
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

# The numbers of faces that have graphs. Others take the next larger one's, whose last rows then are
# of no meaning, as each row is of its own face alone.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# So many graphs there may be, of photographs that differ in size: of those that came again first.
MOST_KEPT = 16
# How far a graph may be from the pass it was recorded from, relative to the largest value: its
# kernels may be chosen anew, which in bfloat16 gives other last digits.
_NEAR = 0.03

# Views (B, …) each → answers (B, …) each, a row of a face depending on its own views alone.
Compute: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]
_Key: TypeAlias = tuple[int, torch.dtype, tuple[torch.Size, ...]]

# A process may record one graph at a time.
_recording = threading.Lock()
# PyTorch before 2.12 never forgets that a failed capture was under way: each later one dies, or
# its memory is never freed. So after the first failure a process records no more.
_FORGETS_FAILURES = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)
# The graphs of those captures, which that PyTorch's allocator goes on reading.
_failures: list[Any] = []


class Recorder(Protocol):
    """What records and orders work on a device: CudaRecorder, or a stand-in for it in tests."""

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """Tensors that the work leaves its results in, and a call that repeats the work."""

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Work that is begun within waits, on the device, for all that was within before."""


class CudaRecorder:
    """Records work on a GPU as CUDA graphs, which share their memory: they run one by one."""

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
                    "another recording failed before, from which PyTorch before "
                    "2.12 does not recover"
                )
            # Memory is shared by graphs of one stream. PyTorch's own would be the first GPU's.
            self._stream = self._stream or torch.cuda.Stream()
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            now = torch.cuda.current_stream()
            self._stream.wait_stream(now)
            try:
                with torch.cuda.stream(self._stream):
                    for _ in range(3):  # libraries settle, and kernels are built, before
                        work()
            finally:  # what the work reads may not be given to others before it is done
                now.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with _random_numbers_apart(torch.cuda.current_device()):
                    results = self._capture(graph, work)
            except BaseException:
                if not _FORGETS_FAILURES:
                    _failures.append(graph)
                self._pool = None  # whose memory the failed graph may hold
                raise
        return results, graph.replay

    def _capture(
        self, graph: torch.cuda.CUDAGraph, work: Callable[[], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        # Other threads may go on using the GPU meanwhile, as those do that read pictures. The
        # outer context leaves the stream even where the inner one fails to.
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
    """Have what is recorded on a GPU within belong to a copy of its random numbers' state.

    A PyTorch that lets each graph belong to that state leaves it unusable after a failed recording:
    nobody can draw random numbers again, and graphs recorded before cannot be replayed.
    """
    generator = torch.cuda.default_generators[index]
    own = generator.graphsafe_get_state()
    generator.graphsafe_set_state(generator.clone_state())
    try:
        yield
    finally:
        copy = generator.graphsafe_get_state()
        generator.graphsafe_set_state(own)
        generator.set_state(copy.get_state())  # what other threads drew meanwhile is drawn


class Captured:
    """Computes by recorded passes where that works, and else call by call, after one warning.

    What comes for the first time runs call by call, what comes again is recorded, up to MOST_KEPT
    sizes; so is none that the memory does not suffice for.
    compute: what is recorded; it may not wait for the device. Each graph is held once against it.
    sizes: the numbers of rows that have graphs, rising; more rows are several passes.
    Safe to use from several threads, which take turns.
    """

    def __init__(self, compute: Compute, recorder: Recorder, sizes: Sequence[int] = SIZES) -> None:
        self._compute, self._recorder, self._sizes = compute, recorder, sizes
        self._met: set[_Key] = set()
        self._passes: dict[_Key, _Pass | None] = {}  # None: it is too large
        self._turn = threading.Lock()
        self._recordable = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and what is sent to another process, record for themselves."""
        return Captured, (self._compute, self._recorder, self._sizes)

    @torch.no_grad()
    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The answers to views (B, …), of any B; new tensors each time.

        A caller's autocast does not count: a graph would outlive the casts that it keeps.
        """
        chunks = zip(*(view.split(self._sizes[-1]) for view in views), strict=True)
        if views[0].is_cuda and torch.cuda.is_current_stream_capturing():
            # The caller records a graph of their own: the work becomes a part of it.
            with torch.autocast("cuda", enabled=False):
                return list(self._compute(views))
        with torch.autocast(views[0].device.type, enabled=False):
            found = [self._answer(chunk) for chunk in chunks]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _answer(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        with self._turn, self._recorder.turn():
            one = self._pass(views) if self._recordable else None
            return one.run(views) if one else self._compute(views)

    def _pass(self, views: Sequence[Tensor]) -> _Pass | None:
        """The graph for so many rows, made if they come again; None: there is none."""
        size = next(size for size in self._sizes if size >= len(views[0]))
        key = size, views[0].dtype, tuple(view.shape[1:] for view in views)
        if key in self._passes:
            return self._passes[key]
        if key not in self._met:
            self._met.add(key)
            return None
        if len(self._passes) < MOST_KEPT:
            self._passes[key] = self._made(size, views)
            if not self._recordable:
                self._passes.clear()
        return self._passes.get(key)

    def _made(self, size: int, views: Sequence[Tensor]) -> _Pass | None:
        """A graph for views like these; None: it is too large, or no graph can be made at all."""
        handled = sys.exc_info()[1]  # by the caller, with which errors here have nothing to do
        # What is written again by later calls must be ordinary tensors.
        with torch.inference_mode(False), torch.no_grad():
            try:
                # Held against numbers at random: a picture might give what cannot be compared.
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
                    f"pcnn: this GPU's passes are not recorded as CUDA graphs ({error}): they run "
                    "call by call, slower (PCNN_GRAPHS=0 asks for that)",
                    RuntimeWarning,
                    stacklevel=6,
                )
                return None


class _Pass:
    """One recorded pass, which reads views in `places`.

    expected: what it must give for what lies there now.
    Raises RuntimeError: it cannot be recorded, or gives something else.
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
            answer.fill_(torch.nan)  # what a graph without work would leave
        self._replay()
        if not all(map(_near, self._answers, expected)):
            raise RuntimeError("a recorded pass gave other answers")

    def run(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The answers to views of at most as many faces, copied."""
        count = len(views[0])
        for place, view in zip(self._places, views, strict=True):
            place[:count].copy_(view)
        self._replay()
        return [answer[:count].clone() for answer in self._answers]


def _lacked_memory(error: BaseException, handled: BaseException | None) -> bool:
    """Whether an error came about while one for want of memory was handled.

    Where memory runs out within a recording, its end raises an error of its own.
    handled: what was being handled before the recording began.
    """
    seen: BaseException | None = error
    while seen is not None and seen is not handled:
        if isinstance(seen, torch.OutOfMemoryError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _numbers(size: int, view: Tensor) -> Tensor:
    """Numbers at random, as many as `size` faces' views like this one have."""
    generator = torch.Generator().manual_seed(size)
    numbers = torch.randn(size, *view.shape[1:], generator=generator)
    return numbers.to(view).contiguous(memory_format=torch.channels_last)


def _near(found: Tensor, expected: Tensor) -> bool:
    apart, largest = (found - expected).abs().amax(), expected.abs().amax()
    return bool(apart <= _NEAR * largest)  # False for NaN


def recorded(compute: Compute, device: torch.device, sizes: Sequence[int] = SIZES) -> Compute:
    """The same by recorded passes, where the device is a GPU and $PCNN_GRAPHS is not 0.

    compute, sizes: as for Captured.
    """
    if device.type != "cuda" or os.environ.get("PCNN_GRAPHS") == "0":
        return compute
    return Captured(compute, CudaRecorder(device), sizes)


def side_by_side(calls: Sequence[Callable[[], Tensor]], device: torch.device) -> list[Tensor]:
    """What the calls give; where a GPU's work is being recorded, as branches of the graph.

    A GPU may work on branches at once. They are recorded on streams of their own, whose memory is
    safe within a graph; outside of one the calls follow each other.
    """
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
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
    finally:  # a branch that is not joined would spoil the end of the recording
        for stream in begun:
            now.wait_stream(stream)
    return found


@functools.lru_cache(maxsize=64)
def _branches(recorded: torch.cuda.Stream, count: int) -> tuple[torch.cuda.Stream, ...]:
    """Streams to record a stream's branches on: the same each time, as graphs of one share memory.

    Each recorded stream has its own. Two threads may record at once, the caller's graph and ours,
    and a stream that took part in both would spoil both.
    """
    return tuple(torch.cuda.Stream(recorded.device) for _ in range(count))
