"""Code compiled ahead of time: torch's answers, by any caller, made once."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cli
import pytest
import tolerances
import torch
from engines.test_cuda_graphs import Recorder
from torch import nn

from pcnn import Recognizer
from pcnn.engines import inductor as compiled
from pcnn.engines import select as engines
from pcnn.engines.classifier import prepare
from pcnn.engines.cuda_graphs import CudaGraphs
from pcnn.engines.select import choose_engine, prepare_classifier
from pcnn.errors import InputError, WeightsError
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS
from pcnn.weights.expression import ExpressionWeights, load_expression

# What PyTorch's compiler warns of in its own code.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for all tests of the module, so that each graph is compiled once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "torch"))
        yield folder / "pcnn" / "engines"


def _loaded(kind: type[PCNN | FaceNet]) -> ExpressionWeights:
    """Small networks with weights at random; the one without regions is of colour."""
    torch.manual_seed(0)
    colour = (0.5,) * (3 if kind is FaceNet else 1)
    network = kind(ModelConfig(size=64, mean=colour, std=colour, width=8)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
    temperatures = dict.fromkeys(REGIONS, 1.0) if kind is PCNN else {}
    return replace(
        load_expression("small"),
        network=network.requires_grad_(False),
        region_temperatures=temperatures,
    )


def _views(loaded: ExpressionWeights, faces: int, seed: int = 0) -> list[torch.Tensor]:
    config = loaded.network.config
    generator = torch.Generator().manual_seed(seed)
    shape = faces, config.channels, config.size, config.size
    views = loaded.network.cut(torch.randn(shape, generator=generator))
    return [view.contiguous(memory_format=torch.channels_last) for view in views]


@pytest.mark.engines
@pytest.mark.parametrize("kind", [PCNN, FaceNet])
def test_it_answers_as_torch_does(kind: type[PCNN | FaceNet]) -> None:
    loaded = _loaded(kind)
    prepared, described = prepare_classifier(loaded, "compile")
    assert described == f"compiled by torch {torch.__version__}, float32, 1 thread"
    plain = prepare(loaded.network)
    for faces in (1, 3, 0, 65, 1):
        for inference in (True, False):
            with torch.inference_mode(inference):
                views = _views(loaded, faces, faces)
                logits, regions = prepared.forward_views(views)
                expected, own = plain.forward_views(views)
                torch.testing.assert_close(logits, expected, **tolerances.ENGINE)
                vectors = prepared.embed_views(views)
                wanted = plain.embed_views(views)
                torch.testing.assert_close(vectors, wanted, **tolerances.ENGINE)
                assert list(regions) == list(own)
                for name in own:
                    torch.testing.assert_close(regions[name], own[name], **tolerances.ENGINE)


@pytest.mark.engines
def test_threads_of_any_share_are_served_at_once_and_copies_too() -> None:
    loaded = _loaded(FaceNet)
    prepared, _ = prepare_classifier(loaded, "compile")
    again = pickle.loads(pickle.dumps(prepared))
    expected = [prepare(loaded.network).forward_views(_views(loaded, 4, n))[0] for n in range(4)]
    before = torch.get_num_threads()

    def work(slot: int) -> None:
        torch.set_num_threads(1 + slot % 2)
        for own in (prepared, again) * 5:
            found = own.forward_views(_views(loaded, 4, slot))[0]
            torch.testing.assert_close(found, expected[slot], **tolerances.ENGINE)

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        torch.set_num_threads(before)


@pytest.mark.engines
def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = _loaded(FaceNet)
    prepare_classifier(loaded, "compile")
    assert not list(cache.glob("part-*"))

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    prepare_classifier(loaded, "compile")
    with pytest.raises(InputError, match="compiled again"):
        prepare_classifier(loaded, "compile", "bfloat16")
    monkeypatch.setattr(engines, "machine", lambda _: "another")
    with pytest.raises(InputError, match="compiled again"):
        prepare_classifier(loaded, "compile")


@pytest.mark.engines
def test_fewer_bits_are_computed_in_them() -> None:
    loaded = _loaded(FaceNet)
    prepared, described = prepare_classifier(loaded, "compile", "bfloat16")
    assert "bfloat16" in described
    views = _views(loaded, 3)
    found, exact = prepared.forward_views(views)[0], prepare(loaded.network).forward_views(views)[0]
    apart = float((found - exact).abs().max() / exact.abs().max())
    assert found.dtype == torch.float32 and 1e-4 < apart < tolerances.BFLOAT16


@pytest.mark.engines
def test_its_passes_can_be_recorded() -> None:
    """As on a GPU, with a stand-in for graphs."""
    loaded = _loaded(FaceNet)
    prepared, _ = prepare_classifier(loaded, "compile")
    recorder = Recorder()
    prepared._answer = CudaGraphs(prepared._answer, recorder)
    plain = prepare(loaded.network)
    for faces in (3, 4, 2, 4):
        views = _views(loaded, faces, faces)
        with torch.inference_mode():
            found = prepared.forward_views(views)[0]
            expected = plain.forward_views(views)[0]
        torch.testing.assert_close(found, expected, **tolerances.ENGINE)
    assert recorder.recorded == [4] and prepared._answer._recordable


@pytest.mark.engines
def test_a_damaged_file_is_named(cache: Path) -> None:
    path = cache / "damaged.pt2"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no code")
    with pytest.raises(WeightsError, match=r"damaged\.pt2: PyTorch cannot load it \(.+\)"):
        compiled.Compiled(path, torch.device("cpu"))


def test_what_cannot_be_compiled_is_named_and_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Another cache than the module's, where an earlier test may have compiled the network.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "pcnn" / "engines"

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the compiler raised:\n\n  no C++ compiler\nand much more")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    reason = r"cannot compile here \(the compiler raised: no C\+\+ compiler\): install .*='torch'$"
    with pytest.raises(InputError, match=rf"engine='compile': PyTorch {reason}"):
        prepare_classifier(_loaded(PCNN), "compile")
    assert "pcnn: compiling the classifier, once" in capsys.readouterr().err
    assert not list(cache.glob("*PCNN*")) and not list(cache.glob("part-*"))


def test_it_is_an_engine_that_nobody_gets_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_engine("compile", cpu) == choose_engine("compile", cuda) == "compile"
    monkeypatch.setattr(engines, "installed", list)
    assert choose_engine("auto", cpu) == choose_engine("auto", cuda) == "torch"


def test_mistakes_are_found_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled first")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(WeightsError, match="no/such"):
        Recognizer(device="cpu", engine="compile", detector="no/such.pth")
    with pytest.raises(WeightsError, match="no/such"):
        Recognizer(device="cpu", engine="compile", head="no/such.safetensors")
    with pytest.raises(InputError, match=r"^choose_precision: precision must be"):
        Recognizer(device="cpu", engine="compile", precision="int4")


def test_auto_asks_torch_how_far_fewer_bits_move_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "quick_precision", lambda _: "bfloat16")
    loaded = load_expression("small")
    made: list[str] = []

    def write(graph: Any, path: Path) -> None:
        made.append(str(graph.network._dtype))
        raise InputError("enough")

    monkeypatch.setattr(engines, "write_compiled", write)
    for moved, dtype in ((0.0, "torch.bfloat16"), (1.0, "torch.float32")):
        monkeypatch.setattr(engines, "movement", lambda *_, moved=moved: moved)
        with pytest.raises(InputError, match="enough"):
            prepare_classifier(loaded, "compile", "auto")
        assert made.pop() == dtype and not made


@pytest.mark.parametrize("text", ["flags\t: fpu avx2\n", "Features\t: fp asimd\n"])
def test_code_is_for_one_kind_of_processor(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: text + "cpu MHz : 2500\n" + text)
    one = compiled.machine(torch.device("cpu"))
    monkeypatch.setattr(Path, "read_text", lambda _: text + "cpu MHz : 1200\n")
    assert compiled.machine(torch.device("cpu")) == one
    monkeypatch.setattr(Path, "read_text", lambda _: text.replace("\n", " more\n"))
    assert compiled.machine(torch.device("cpu")) != one


@pytest.mark.engines
def test_the_command_takes_it(astronaut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.predict([str(astronaut), "--engine", "compile", "--weights", "small"]) == 0
    told = capsys.readouterr()
    assert "happiness" in told.out and "compiling the classifier" in told.err


def test_a_gpu_needs_a_torch_that_can_load_code_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def of_torch_2_6(path: str) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(torch._inductor, "aoti_load_package", of_torch_2_6)
    graph: Any = SimpleNamespace(example=[torch.empty(1, device="meta")])
    with pytest.raises(InputError, match="cannot load compiled code for a GPU"):
        compiled.write_compiled(graph, tmp_path / "never.pt2")
