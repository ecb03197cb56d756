"""Recorded passes: their bookkeeping with a stand-in for CUDA graphs, and on a GPU themselves."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pcnn import load_image
from pcnn.devices import upload
from pcnn.engines import cuda_graphs as captured
from pcnn.engines.classifier import prepare
from pcnn.engines.cuda_graphs import SIZES, CudaGraphs
from pcnn.faces.detector import Detector
from pcnn.networks.pcnn import PCNN, ModelConfig

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


class Recorder:
    """Like a graph: the work was done once, and is repeated on the memory of that time alone."""

    def __init__(self, fault: float = 0.0) -> None:
        self.recorded: list[int] = []
        self.replays, self.recording = 0, False
        self._fault, self._inside = fault, False

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        self.recording = True
        try:
            results = work()
        finally:
            self.recording = False
        self.recorded.append(len(results[0]))

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
        try:
            yield
        finally:
            self._inside = False


class Idle(Recorder):
    """Its graphs do nothing: what was computed while they were recorded is all there is."""

    def record(
        self, work: Callable[[], Sequence[Tensor]]
    ) -> tuple[Sequence[Tensor], Callable[[], None]]:
        return work(), lambda: None


class Refusing(Recorder):
    def record(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable]:
        raise RuntimeError("operation not permitted when stream is capturing")


def compute(views: Sequence[Tensor]) -> list[Tensor]:
    """Two answers a face, of its own views alone."""
    first, second = views
    return [first.sum((2, 3)), 10 * second.amax((2, 3)) + first.mean((2, 3))]


def views_of(faces: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(1 + torch.rand(faces, 3, side, 4, generator=generator)).to(dtype) for side in (4, 2)]


def small_network(seed: int = 0) -> PCNN:
    torch.manual_seed(seed)
    return PCNN(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval()


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("inference", [False, True])
def test_any_number_of_faces(inference: bool) -> None:
    recorder = Recorder()
    answer = CudaGraphs(compute, recorder)
    with torch.inference_mode(inference):
        for faces in (1, 3, 2, 4, 0, 128, 300, 3, 1, 300):
            assert_same(answer(views_of(faces, faces)), compute(views_of(faces, faces)))
    # What came twice; 3 and 4 faces are of one size, 0 and 1 as well; 300 = 2 · 128 + 44.
    assert recorder.recorded == [4, 1, 128, 64]
    assert recorder.replays == 4 + 9  # once each to be held against the plain pass


def test_the_first_sizes_that_come_again_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "MOST_KEPT", 2)
    recorder = Recorder()
    answer = CudaGraphs(compute, recorder)
    for faces in (1, 1, 2, 2, 1, 4, 4, 4, 2, 1):
        assert_same(answer(views_of(faces, faces)), compute(views_of(faces, faces)))
    assert recorder.recorded == [1, 2] and recorder.replays == 2 + 5


def test_sizes_that_do_not_come_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of ever other sizes would fill the memory."""
    monkeypatch.setattr(captured, "MOST_MET", 2)
    recorder = Recorder()
    answer = CudaGraphs(compute, recorder)
    for faces in (1, 2, 4, 1, 4, 2):  # 4 makes it forget 1, and then 1 makes it forget 2
        assert_same(answer(views_of(faces, faces)), compute(views_of(faces, faces)))
    assert recorder.recorded == [4] and len(answer._met) == 2


@pytest.mark.parametrize("largest", [8, 5])
def test_what_is_too_large_for_the_memory_is_computed_call_by_call(largest: int) -> None:
    """5 faces are computed; neither 8 in their place, nor 5 recorded. The others have graphs."""
    recorder = Recorder()

    def limited(views: Sequence[Tensor]) -> list[Tensor]:
        if len(views[0]) > 5 - recorder.recording:
            raise torch.OutOfMemoryError("out of memory")
        return compute(views)

    answer = CudaGraphs(limited, recorder, (1, largest))
    for faces in (1, 1, 5, 5, 5, 1):
        assert_same(answer(views_of(faces)), compute(views_of(faces)))
    assert recorder.recorded == [1] and answer._recordable


def test_graphs_within_a_graph_become_part_of_it() -> None:
    """Also within the first, plain pass: what is not needed alone is never recorded."""
    within, around = Recorder(), Recorder()
    inner = CudaGraphs(compute, within)

    def whole(views: Sequence[Tensor]) -> list[Tensor]:
        both = [torch.cat((view, view.flip(3))) for view in views]
        first, second = inner(both)
        return [(first + second).softmax(1)[: len(views[0])]]

    answer = CudaGraphs(whole, around)
    for faces in (2, 2, 1, 2, 1):
        assert_same(answer(views_of(faces, faces)), whole(views_of(faces, faces)))
    # Outside, `whole` asked the inner ones for 4 and 2 faces, and again.
    assert around.recorded == [2, 1] and within.recorded == [4, 2]
    assert around.replays == 2 + 3

    def failing(views: Sequence[Tensor]) -> list[Tensor]:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        CudaGraphs(failing, around)(views_of(1))
    for _ in range(2):  # and after it a graph is a graph again
        assert_same(inner(views_of(8)), compute(views_of(8)))
    assert within.recorded == [4, 2, 8]


def test_earlier_answers_stay() -> None:
    answer = CudaGraphs(compute, Recorder())
    answer(views_of(2))
    first = answer(views_of(2, 1))
    kept = [found.clone() for found in first]
    answer(views_of(2, 2))
    assert_same(first, kept)


def test_each_dtype_has_its_own_passes() -> None:
    recorder = Recorder()
    answer = CudaGraphs(compute, recorder)
    for dtype in (torch.float32, torch.float64) * 3:
        found = answer(views_of(1, dtype=dtype))
        assert found[0].dtype == dtype
        assert_same(found, compute(views_of(1, dtype=dtype)))
    assert recorder.recorded == [1, 1]


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Refusing(), "operation not permitted when stream is capturing"),
        (Recorder(fault=5.0), "a CUDA graph gave answers that differ"),
        (Idle(), "a CUDA graph gave answers that differ"),
        (Recorder(fault=torch.nan), "a CUDA graph gave answers that differ"),
    ],
)
def test_what_cannot_be_recorded_is_computed_call_by_call(recorder: Recorder, reason: str) -> None:
    answer = CudaGraphs(compute, recorder)
    answer(views_of(4))
    with pytest.warns(RuntimeWarning, match=f"cannot record CUDA graphs.*{reason}") as told:
        found = answer(views_of(3))
    assert len(told) == 1
    assert_same(found, compute(views_of(3)))
    assert_same(answer(views_of(5)), compute(views_of(5)))  # and nobody is warned again
    assert not answer._passes


def test_a_caller_s_mistake_is_no_fault_of_the_graphs() -> None:
    answer = CudaGraphs(compute, Recorder())
    flat, uneven = [view[..., 0] for view in views_of(2)], [views_of(3)[0], views_of(2)[1]]
    for wrong, error in ((flat, IndexError), (uneven, RuntimeError)):
        with pytest.raises(error):
            answer(wrong)
    with pytest.raises(RuntimeError, match="rank 4"):  # asked again, as recordings are
        answer(flat)
    broken = views_of(2)
    broken[0][0] = torch.nan
    for _ in range(2):
        found = answer(broken)
        assert found[0][0].isnan().all() and found[0][1].isfinite().all()
    assert answer._recordable and len(answer._passes) == 1


def test_views_of_another_size_have_their_own_passes() -> None:
    answer = CudaGraphs(compute, Recorder())
    larger = [torch.rand(2, 3, side, side) for side in (6, 3)]
    for _ in range(3):
        assert_same(answer(views_of(2)), compute(views_of(2)))
        assert_same(answer(larger), compute(larger))
    assert len(answer._passes) == 2


def test_a_caller_s_autocast_does_not_count() -> None:
    def product(views: Sequence[Tensor]) -> list[Tensor]:
        return [views[0][:, 0] @ views[0][:, 0].transpose(1, 2)]

    answer = CudaGraphs(product, Recorder())
    views = [torch.rand(2, 1, 4, 4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(views)[0].dtype == torch.bfloat16
        found = [answer(views)[0], answer(views)[0]]
    assert found[0].dtype == found[1].dtype == torch.float32


def test_a_detector_s_passes_by_shape() -> None:
    recorder = Recorder()
    network, plain = (Detector.load("mobilenet")._prepared for _ in range(2))
    for fine, compute_one in network._compute.items():
        network._recorded[fine] = CudaGraphs(compute_one, recorder, (1, 2))
    numbers = np.random.default_rng(0)
    for count, height, fine in ((1, 64, True), (3, 32, False), (2, 32, False)) * 2:
        shape = (height, 64, 3)
        images = [torch.from_numpy(numbers.integers(0, 256, shape, np.uint8)) for _ in range(count)]
        canvas = plain.canvas(images, height, 64)
        torch.testing.assert_close(network(canvas, fine=fine), plain(canvas, fine=fine))
    assert recorder.recorded == [1, 2]  # more at once, call by call


def test_what_a_detector_holds_goes_with_it() -> None:
    """Graphs and weights on a GPU should not wait for the garbage collector."""
    gc.disable()
    try:
        detector = Detector.load("mobilenet")
        prepared = weakref.ref(detector._prepared)
        del detector
        assert prepared() is None
    finally:
        gc.enable()


def test_threads_take_turns() -> None:
    answer = CudaGraphs(compute, Recorder())

    def work(seed: int) -> None:
        for faces in (1, 2, 5, 2, 1):
            assert_same(answer(views_of(faces, seed)), compute(views_of(faces, seed)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_copies_record_for_themselves() -> None:
    answer = CudaGraphs(compute, captured.CudaRecorder(torch.device("cuda:0")), (1, 2))
    again = pickle.loads(pickle.dumps(answer))
    assert again._compute is compute and again._recorder._device == torch.device("cuda:0")
    assert again._sizes == (1, 2)


def test_calls_follow_each_other_where_nothing_is_recorded() -> None:
    calls = [lambda value=value: torch.tensor(value) for value in (3, 1, 2)]
    found = captured.parallel_branches(calls, torch.device("cpu"))
    assert [int(each) for each in found] == [3, 1, 2]


def test_graphs_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert captured.with_cuda_graphs(compute, cpu) is compute
    assert isinstance(captured.with_cuda_graphs(compute, cuda), CudaGraphs)
    monkeypatch.setenv("PCNN_GRAPHS", "0")
    assert captured.with_cuda_graphs(compute, cuda) is compute


@needs_gpu
@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_graphs_of_the_network_on_a_gpu(dtype: torch.dtype) -> None:
    network = small_network()
    plain, graphs = prepare(network, dtype), prepare(network.cuda(), dtype)
    for faces in (1, 3, SIZES[-1] + 5, 3, 0, SIZES[-1] + 5):
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
    network = small_network().cuda()
    graphs = prepare(network)
    faces = [torch.randn(2, 1, 64, 64, device="cuda") for _ in range(4)]
    for _ in range(2):  # the first time, call by call
        expected = [graphs.forward_views(network.cut(face))[0] for face in faces]

    def work(slot: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                found = graphs.forward_views(network.cut(faces[slot]))[0]
                assert torch.equal(found, expected[slot])

    torch.cuda.synchronize()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@needs_gpu
@pytest.mark.cuda
def test_networks_recorded_at_once_while_others_work_on_a_gpu() -> None:
    """The first passes of two networks, in two threads, while a third draws and uploads."""
    networks = [small_network(seed).cuda() for seed in range(2)]
    graphs = [prepare(network) for network in networks]
    done = threading.Event()

    def first(slot: int) -> None:
        for faces in (1, 2, 4) * 2:
            face = torch.randn(faces, 1, 64, 64).cuda()
            expected = networks[slot](face)[0].detach()
            found = graphs[slot].forward_views(networks[slot].cut(face))[0]
            torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)

    def busy() -> None:
        while not done.is_set():
            upload(torch.rand(480, 640, 3), torch.device("cuda")).mean().item()

    with ThreadPoolExecutor(3) as pool:
        other = pool.submit(busy)
        try:
            list(pool.map(first, range(2)))
        finally:
            done.set()
        other.result()
    assert all(each._answer._recordable for each in graphs)


@needs_gpu
@pytest.mark.cuda
def test_a_refused_recording_leaves_the_gpu_in_order() -> None:
    """In a process of its own: before 2.12 PyTorch does not recover from a failed recording."""
    code = f"import {Path(__file__).stem} as tests; tests.refuse_a_recording()"
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=place,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def refuse_a_recording() -> None:
    def waits(views: Sequence[Tensor]) -> list[Tensor]:
        return [views[0].sum((1, 2, 3)) + float(views[0].mean())]  # waits for the GPU

    before = torch.cuda.current_stream()
    good = CudaGraphs(lambda views: [2 * views[0]], captured.CudaRecorder(torch.device("cuda", 0)))
    answer = CudaGraphs(waits, captured.CudaRecorder(torch.device("cuda", 0)))
    views = [torch.rand(2, 1, 4, 4).cuda()]
    for _ in range(2):
        good(views)
    assert len(good._passes) == 1
    state = torch.cuda.get_rng_state()
    answer(views)
    with pytest.warns(RuntimeWarning, match="cannot record CUDA graphs"):
        found = answer(views)[0]
    assert torch.cuda.current_stream() == before
    torch.testing.assert_close(found, waits(views)[0])
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.rand(3, device="cuda").sum().item()
    torch.testing.assert_close(good(views)[0], 2 * views[0])  # recorded before, replayed after


@needs_gpu
@pytest.mark.cuda
def test_a_detector_on_a_gpu_finds_what_it_finds_on_a_cpu(
    astronaut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Call by call the first time, then as graphs, of more shapes than are kept."""
    monkeypatch.setattr(captured, "MOST_KEPT", 3)
    plain, graphs = Detector.load("mobilenet"), Detector.load("mobilenet", device="cuda:0")
    picture = load_image(astronaut)
    pictures = [picture, *(picture[: 288 + 32 * step] for step in range(6)), picture]
    expected = plain.detect(pictures)
    for _ in range(3):
        for found, faces in zip(graphs.detect(pictures), expected, strict=True):
            assert len(found) == len(faces)
            for one, other in zip(found, faces, strict=True):
                np.testing.assert_allclose(one.box, other.box, atol=2)
                np.testing.assert_allclose(one.landmarks, other.landmarks, atol=2)
    recorded = graphs._prepared._recorded
    assert all(each._recordable and len(each._passes) == 3 for each in recorded.values())


class Scarce(Recorder):
    """Memory runs out within the recording, whose end then fails for a reason of its own."""

    def record(self, work: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Callable]:
        try:
            raise torch.OutOfMemoryError("out of memory")
        finally:
            raise RuntimeError("the capture was invalidated")


def test_memory_that_runs_out_while_recording_refuses_that_size_alone() -> None:
    answer = CudaGraphs(compute, Scarce())
    for _ in range(3):
        assert_same(answer(views_of(2)), compute(views_of(2)))
    assert answer._recordable and list(answer._passes.values()) == [None]


def test_memory_that_ran_out_before_is_no_reason_of_a_refusal() -> None:
    """A caller tries smaller batches while the error of a larger one is handled."""
    answer = CudaGraphs(compute, Refusing())
    try:
        raise torch.OutOfMemoryError("the caller's")
    except torch.OutOfMemoryError:
        answer(views_of(2))
        with pytest.warns(RuntimeWarning, match="cannot record CUDA graphs"):
            answer(views_of(2))
    assert not answer._recordable


class Numbers:
    """Random numbers of a GPU as PyTorch 2.6 keeps them: a state that a recording belongs to."""

    def __init__(self, state: dict[str, int]) -> None:
        self.state = state

    def graphsafe_get_state(self) -> Numbers:
        return Numbers(self.state)

    def graphsafe_set_state(self, other: Numbers) -> None:
        self.state = other.state

    def clone_state(self) -> Numbers:
        return Numbers({**self.state, "recording": 0})

    def get_state(self) -> int:
        return self.state["drawn"]

    def set_state(self, drawn: int) -> None:
        self.state["drawn"] = drawn

    def draw(self) -> int:
        assert not self.state["recording"], "drawn outside of the recording that is under way"
        self.state["drawn"] += 1
        return self.state["drawn"]


def test_a_refused_recording_leaves_random_numbers_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = Numbers({"drawn": 5, "recording": 0})
    state = numbers.state  # which graphs of before belong to
    monkeypatch.setattr(torch.cuda, "default_generators", (numbers,))
    with pytest.raises(RuntimeError, match="refused"), captured._random_numbers_apart(0):
        numbers.draw()  # by another thread
        numbers.state["recording"] = 1
        raise RuntimeError("refused")
    assert numbers.state is state
    assert numbers.draw() == 7


@needs_gpu
@pytest.mark.cuda
def test_a_caller_s_own_recording_on_a_gpu() -> None:
    network = small_network().cuda()
    graphs = prepare(network)
    views = network.cut(torch.randn(2, 1, 64, 64, device="cuda"))
    with torch.inference_mode():
        for _ in range(3):
            expected = graphs.forward_views(views)[0].clone()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = graphs.forward_views(views)[0]
        found.fill_(torch.nan)
        graph.replay()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
