"""Compiled passes: used wherever they fit, and nothing is compiled after load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import tolerances
import torch
from torch import Tensor

from pcnn import cli, engines
from pcnn.compiled import Compiled
from pcnn.engines import choose_engine, prepare_classifier
from pcnn.errors import InputError
from pcnn.inference import prepare
from pcnn.model import PCNN, FaceNet, ModelConfig
from pcnn.weights import load_expression


class Backend:
    """A backend of torch.compile that computes as it is told, and counts."""

    def __init__(self) -> None:
        self.compiled = self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        self.compiled += 1

        def run(*arguments: Any) -> Any:
            self.calls += 1
            return graph(*arguments)

        return run


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What torch.compile keeps, its number of tries included, is each test's own."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def views_of(faces: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(faces, 3, side, 4, generator=generator) for side in (4, 2)]


def compute(weight: Tensor, views: Sequence[Tensor]) -> list[Tensor]:
    first, second = views
    return [first.sum((2, 3)) * weight, second.amax((2, 3)) + first.mean((2, 3))]


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def answer(backend: Backend) -> Compiled:
    return Compiled(partial(compute, torch.tensor([1.0, 2.0, 3.0])), views_of, backend=backend)


def assert_same(found: Sequence[Tensor], faces: int, seed: int = 0) -> None:
    expected = compute(torch.tensor([1.0, 2.0, 3.0]), views_of(faces, seed))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("inference", [False, True])
def test_any_number_of_faces_without_compiling_again(
    answer: Compiled, backend: Backend, inference: bool
) -> None:
    assert (backend.compiled, backend.calls) == (2, 2)
    with torch.inference_mode(inference):
        for faces in (1, 2, 3, 64, 1):
            assert_same(answer(views_of(faces)), faces)
    assert (backend.compiled, backend.calls) == (2, 7)


def test_views_laid_out_in_other_ways_fit_as_well(answer: Compiled, backend: Backend) -> None:
    last = [view.contiguous(memory_format=torch.channels_last) for view in views_of(3)]
    slices = [torch.cat((view, view), 3)[..., :4] for view in views_of(3)]
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for views in (last, slices):
            assert_same(answer(views), 3)
    assert (backend.compiled, backend.calls) == (2, 4)


def test_what_does_not_fit_is_computed_call_by_call(answer: Compiled, backend: Backend) -> None:
    assert_same(answer(views_of(0)), 0)
    double = answer([view.double() for view in views_of(2)])
    assert double[1].dtype == torch.float64
    assert_same([found.float() for found in double], 2)
    assert (backend.compiled, backend.calls) == (2, 2)
    assert_same(answer(views_of(5)), 5)
    assert backend.calls == 3


def test_other_threads_compile_nothing(answer: Compiled, backend: Backend) -> None:
    """Those with another share of torch's threads compute, those with as many take turns."""

    def work(threads: int) -> None:
        torch.set_num_threads(threads)
        for faces in (1, 2, 5):
            assert_same(answer(views_of(faces, threads)), faces, threads)

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work, before + 1).result()
        assert (backend.compiled, backend.calls) == (2, 2)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, [before] * 8))
        assert (backend.compiled, backend.calls) == (2, 2 + 8 * 3)
    finally:
        torch.set_num_threads(before)


def test_the_caller_s_own_stance_stays(answer: Compiled) -> None:
    other = Backend()
    theirs = torch.compile(lambda value: value + 1, backend=other, dynamic=False)
    for size in (2, 3):
        answer(views_of(size))
        theirs(torch.ones(size))
    assert other.compiled == 2


def test_what_cannot_be_compiled_is_named() -> None:
    def fail(_: torch.fx.GraphModule, __: Sequence[Any]) -> Callable[..., Any]:
        raise RuntimeError("no C++ compiler\nand much more")

    message = (
        r"engine 'compile': torch.compile fails here \(.* no C\+\+ compiler\): say engine='torch'$"
    )
    with pytest.raises(InputError, match=message):
        Compiled(partial(compute, torch.ones(3)), views_of, backend=fail)


@pytest.mark.parametrize("kind", [PCNN, FaceNet])
def test_networks_are_compiled_whole(
    kind: type[PCNN | FaceNet], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcnn.inference.Compiled", partial(Compiled, backend=backend))
    torch.manual_seed(0)
    network = kind(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)).eval()
    prepared, plain = prepare(network, compiled=True), prepare(network)
    assert backend.compiled == 2
    for faces in (1, 5):
        views = network.cut(torch.randn(faces, 1, 64, 64))
        logits, regions = prepared.forward_views(views)
        expected, own = plain.forward_views(views)
        torch.testing.assert_close(logits, expected, **tolerances.ENGINE)
        vectors = prepared.embed_views(views)
        torch.testing.assert_close(vectors, plain.embed_views(views), **tolerances.ENGINE)
        assert list(regions) == list(own)
        for name in own:
            torch.testing.assert_close(regions[name], own[name], **tolerances.ENGINE)
    assert (backend.compiled, backend.calls) == (2, 2 + 4)


# --- as an engine ---


def test_it_is_an_engine_that_nobody_gets_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_engine("compile", cpu) == choose_engine("compile", cuda) == "compile"
    monkeypatch.setattr(engines, "missing", list)
    assert choose_engine("auto", cpu) == choose_engine("auto", cuda) == "torch"


def test_the_wait_is_announced(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pcnn.inference.Compiled", partial(Compiled, backend=backend))
    _, described = prepare_classifier(load_expression("small"), "compile")
    assert described == f"torch.compile of torch {torch.__version__}, float32, 1 thread"
    assert "pcnn: compiling the classifier" in capsys.readouterr().err


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # PyTorch's own
def test_compiled_by_inductor_it_answers_as_it_does_otherwise() -> None:
    loaded = load_expression("small")
    config = loaded.network.config
    prepared, _ = prepare_classifier(loaded, "compile")
    plain = prepare(loaded.network)
    for faces in (1, 3):
        squares = torch.randn(faces, config.channels, config.size, config.size)
        views = loaded.network.cut(squares)
        found, expected = prepared.forward_views(views)[0], plain.forward_views(views)[0]
        torch.testing.assert_close(found, expected, **tolerances.ENGINE)


@pytest.mark.engines
def test_the_command_takes_it(
    astronaut: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcnn.inference.Compiled", partial(Compiled, backend="eager"))
    assert cli.predict([str(astronaut), "--engine", "compile"]) == 0
    assert "happiness" in capsys.readouterr().out
