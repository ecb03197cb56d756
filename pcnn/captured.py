"""A network's pass on a GPU as one CUDA graph: hundreds of launches become one.

For a few faces a GPU waits for its orders most of the time. A graph gives them all at once, but
reads and writes the same memory always: so there is one for each of a few numbers of faces.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

# The numbers of faces that have graphs. Others take the next larger one's, whose last rows then are
# of no meaning, as each row is of its own face alone.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# How far a graph may be from the pass it was recorded from, relative to the largest value: its
# kernels may be chosen anew, which in bfloat16 gives other last digits.
_NEAR = 0.03

# Views (B, …) each → answers (B, …) each, a row of a face depending on its own views alone.
Compute: TypeAlias = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Recorder(Protocol):
    """What records and orders work on a device: CudaRecorder, or a stand-in for it in tests."""

    def record(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Any]:
        """Tensors that the work leaves its results in, and a call that repeats the work."""

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Work that is begun within waits, on the device, for all that was within before."""


class CudaRecorder:
    """Records work on a GPU as CUDA graphs, which share their memory: they run one by one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._last: torch.cuda.Event | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaRecorder, (self._device,)

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        """See Recorder. Raises RuntimeError: the work cannot be recorded."""
        with torch.cuda.device(self._device):
            now, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(now)
            with torch.cuda.stream(side):
                for _ in range(3):  # libraries settle, and kernels are built, before
                    work()
            now.wait_stream(side)
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using the GPU meanwhile, as those do that read pictures.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                results = work()
        return results, graph.replay

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


class Captured:
    """Computes by recorded passes where that works, and else call by call, after one warning.

    compute: what is recorded; it may not wait for the device. Each graph is held once against it.
    Safe to use from several threads, which take turns.
    """

    def __init__(self, compute: Compute, recorder: Recorder) -> None:
        self._compute, self._recorder = compute, recorder
        self._passes: dict[tuple[int, torch.dtype], _Pass] = {}
        self._turn = threading.Lock()
        self._recordable = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and what is sent to another process, record for themselves."""
        return Captured, (self._compute, self._recorder)

    @torch.no_grad()
    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The answers to views (B, …), of any B; new tensors each time."""
        chunks = zip(*(view.split(SIZES[-1]) for view in views), strict=True)
        found = [self._answer(chunk) for chunk in chunks]
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _answer(self, views: Sequence[Tensor]) -> Sequence[Tensor]:
        count = max(1, len(views[0]))
        size = next(size for size in SIZES if size >= count)
        with self._turn:
            if self._recordable:
                try:
                    with self._recorder.turn():
                        return self._pass(size, views).run(views)
                except RuntimeError as error:
                    self._recordable = False
                    warnings.warn(
                        f"pcnn: this GPU's passes are not recorded as CUDA graphs ({error}): they "
                        "run call by call, slower",
                        RuntimeWarning,
                        stacklevel=4,
                    )
        return self._compute(views)

    def _pass(self, size: int, views: Sequence[Tensor]) -> _Pass:
        key = size, views[0].dtype
        if key not in self._passes:
            # What is written again by later calls must be ordinary tensors.
            with torch.inference_mode(False), torch.no_grad():
                made = _Pass(self._compute, self._recorder, size, views)
            self._passes[key] = made
        return self._passes[key]


class _Pass:
    """One recorded pass over `size` faces. Raises RuntimeError: it cannot be recorded."""

    def __init__(
        self, compute: Compute, recorder: Recorder, size: int, views: Sequence[Tensor]
    ) -> None:
        self._views = [
            view.new_zeros(size, *view.shape[1:]).contiguous(memory_format=torch.channels_last)
            for view in views
        ]
        self._copy(views)
        expected = [answer.clone() for answer in compute(self._views)]
        self._answers, self._replay = recorder.record(lambda: compute(self._views))
        self._replay()
        if not all(map(_near, self._answers, expected)):
            raise RuntimeError("a recorded pass gave other answers")

    def run(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The answers to views of at most `size` faces, copied."""
        self._copy(views)
        self._replay()
        return [answer[: len(views[0])].clone() for answer in self._answers]

    def _copy(self, views: Sequence[Tensor]) -> None:
        for place, view in zip(self._views, views, strict=True):
            place[: len(view)].copy_(view)


def _near(found: Tensor, expected: Tensor) -> bool:
    apart, largest = (found - expected).abs().amax(), expected.abs().amax()
    return bool(apart <= _NEAR * largest)  # False for NaN


def side_by_side(calls: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """What the calls give; where they are being recorded, as branches of the graph.

    A GPU may work on branches at once. They are recorded on streams of their own, whose memory is
    safe within a graph; outside of one the calls follow each other.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return [call() for call in calls]
    now = torch.cuda.current_stream()
    streams = [torch.cuda.Stream() for _ in calls]
    found = []
    for stream, call in zip(streams, calls, strict=True):
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            found.append(call())
    for stream in streams:
        now.wait_stream(stream)
    return found
