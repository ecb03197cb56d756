"""Recorded passes: their bookkeeping with a stand-in for CUDA graphs, and on a GPU themselves."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from pcnn import captured
from pcnn.captured import SIZES, Captured
from pcnn.inference import prepare
from pcnn.model import PCNN, ModelConfig

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Recorder:
    """Like a graph: the work was done once, and is repeated on the memory of that time alone."""

    def __init__(self, fault: float = 0.0) -> None:
        self.recorded: list[int] = []
        self.replays = 0
        self._fault, self._inside = fault, False

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        results = work()
        self.recorded.append(len(results[0]))
        for result in results:
            result.fill_(torch.nan)  # while it is recorded, nothing is computed

        def replay() -> None:
            assert self._inside
            self.replays += 1
            for place, result in zip(results, work(), strict=True):
                place.copy_(result + self._fault)

        return results, replay

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        assert not self._inside
        self._inside = True
        yield
        self._inside = False


class Refusing(Recorder):
    def record(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable]:
        raise RuntimeError("operation not permitted when stream is capturing")

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        yield


def compute(views: Sequence[Tensor]) -> list[Tensor]:
    """Two answers a face, of its own views alone."""
    first, second = views
    return [first.sum((2, 3)), 10 * second.amax((2, 3)) + first.mean((2, 3))]


def views_of(faces: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(1 + torch.rand(faces, 3, side, 4, generator=generator)).to(dtype) for side in (4, 2)]


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("inference", [False, True])
def test_any_number_of_faces(inference: bool) -> None:
    recorder = Recorder()
    answer = Captured(compute, recorder)
    with torch.inference_mode(inference):
        for faces in (1, 3, 2, 4, 0, 128, 300, 3, 1):
            assert_same(answer(views_of(faces, faces)), compute(views_of(faces, faces)))
    assert recorder.recorded == [1, 4, 2, 128, 64]  # 300 = 2 · 128 + 44
    assert recorder.replays == 5 + 11  # once to be held against the plain pass


def test_earlier_answers_stay() -> None:
    answer = Captured(compute, Recorder())
    first = answer(views_of(2, 1))
    kept = [found.clone() for found in first]
    answer(views_of(2, 2))
    assert_same(first, kept)


def test_each_dtype_has_its_own_passes() -> None:
    recorder = Recorder()
    answer = Captured(compute, recorder)
    for dtype in (torch.float32, torch.float64, torch.float32):
        found = answer(views_of(1, dtype=dtype))
        assert found[0].dtype == dtype
        assert_same(found, compute(views_of(1, dtype=dtype)))
    assert recorder.recorded == [1, 1]


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Refusing(), "operation not permitted when stream is capturing"),
        (Recorder(fault=5.0), "a recorded pass gave other answers"),
        (Recorder(fault=torch.nan), "a recorded pass gave other answers"),
    ],
)
def test_what_cannot_be_recorded_is_computed_call_by_call(recorder: Recorder, reason: str) -> None:
    answer = Captured(compute, recorder)
    with pytest.warns(RuntimeWarning, match=f"not recorded as CUDA graphs.*{reason}") as told:
        found = answer(views_of(3))
    assert len(told) == 1
    assert_same(found, compute(views_of(3)))
    assert_same(answer(views_of(5)), compute(views_of(5)))  # and nobody is warned again


def test_threads_take_turns() -> None:
    answer = Captured(compute, Recorder())
    wrong: list[int] = []

    def work(seed: int) -> None:
        for faces in (1, 2, 5):
            for one, other in zip(
                answer(views_of(faces, seed)), compute(views_of(faces, seed)), strict=True
            ):
                if not torch.allclose(one, other):
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_copies_record_for_themselves() -> None:
    answer = Captured(compute, captured.CudaRecorder(torch.device("cuda:0")))
    again = pickle.loads(pickle.dumps(answer))
    assert again._compute is compute and again._recorder._device == torch.device("cuda:0")


def test_calls_follow_each_other_where_nothing_is_recorded() -> None:
    calls = [lambda value=value: torch.tensor(value) for value in (3, 1, 2)]
    assert [int(found) for found in captured.side_by_side(calls)] == [3, 1, 2]


@needs_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_graphs_of_the_network_on_a_gpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval()
    plain, graphs = prepare(network, dtype), prepare(network.cuda(), dtype)
    for faces in (1, 3, SIZES[-1] + 5, 3, 0):
        face = torch.randn(faces, 1, 64, 64, generator=torch.Generator().manual_seed(faces))
        views = network.cut(face)
        with torch.inference_mode():
            logits, regions = graphs.forward_views([view.cuda() for view in views])
            expected, own = plain.forward_views(views)
            vectors = graphs.embed_views([view.cuda() for view in views])
        # float32 on a GPU may be TF32 in convolutions, of as many digits as float16.
        near = {"rtol": 0.05, "atol": 0.05 * float(expected.abs().max()) if faces else 0}
        torch.testing.assert_close(logits.cpu(), expected, **near)
        torch.testing.assert_close(vectors.cpu(), plain.embed_views(views), rtol=0.05, atol=0.05)
        for name in own:
            torch.testing.assert_close(regions[name].cpu(), own[name], rtol=0.05, atol=0.05)
    assert graphs._answer._recordable and len(graphs._answer._passes) == 4


@needs_gpu
@pytest.mark.cuda
def test_threads_with_streams_of_their_own_on_a_gpu() -> None:
    torch.manual_seed(0)
    network = PCNN(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval().cuda()
    graphs = prepare(network)
    faces = [torch.randn(2, 1, 64, 64, device="cuda") for _ in range(4)]
    expected = [graphs.forward_views(network.cut(face))[0] for face in faces]
    wrong: list[int] = []

    def work(slot: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                found = graphs.forward_views(network.cut(faces[slot]))[0]
                if not torch.equal(found, expected[slot]):
                    wrong.append(slot)

    torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
