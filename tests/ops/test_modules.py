"""Which compiled module serves a GPU: each has to run there first, and what fails is passed over.

There is no GPU here: the kernels on the CPU (emulated_cuda) stand in for those on one, and fail in
the words of CUDA's runtime where a test asks for it.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import emulated_cuda
import pytest
import torch

from pcnn.errors import NativeError
from pcnn.ops import build, modules, native, reference

pytestmark = pytest.mark.skipif(
    shutil.which(emulated_cuda.COMPILER) is None, reason="needs a C++ compiler"
)
GPU = torch.device("cpu", 0)  # of which there is one, as far as modules.py can see
OLD_DRIVER = "CUDA driver version is insufficient for CUDA runtime version"
OTHER_GPU = "no kernel image is available for execution on the device"
NEW_PTX = "the provided PTX was compiled with an unsupported toolchain."


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]


@pytest.fixture(scope="module")
def emulated() -> ModuleType:
    pytest.importorskip("pybind11")
    return emulated_cuda.load()


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch, emulated: ModuleType) -> None:
    """A GPU of compute capability 8.6 that nothing was tried on; no module is packaged or built."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    stream = SimpleNamespace(device_index=0, cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(modules, "_cuda_modules", {})
    monkeypatch.setattr(native, "_warned", set())
    monkeypatch.setattr(native, "choice", "auto")
    package(monkeypatch, None)
    compile_as(monkeypatch)


def package(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setattr(modules, "packaged", lambda name: (module, "" if module else "not there"))


def compile_as(monkeypatch: pytest.MonkeyPatch, *compiled: Any) -> None:
    """Have first use compile these, one a compiler, the first that serves being taken."""

    def cuda_module(capability: tuple[int, int], use: Callable[[Path], Any]) -> Any:
        failures = ["no CUDA compiler (nvcc) found"] * (not compiled)
        for number in range(len(compiled)):
            try:
                return use(Path(str(number)))
            except NativeError as error:
                failures.append(str(error))
        raise NativeError("\n".join(failures))

    monkeypatch.setattr(build, "cuda_module", cuda_module)
    monkeypatch.setattr(modules, "load", lambda path: compiled[int(str(path))])


def counting(module: ModuleType | None = None, error: str = "") -> Any:
    """A module whose launches are counted: another's, failing ones, or such as do nothing."""

    def warp_add(*arguments: Any) -> None:
        stand_in.launches += 1
        if error:
            raise RuntimeError(error)
        if module is not None:
            module.warp_add(*arguments)

    stand_in = SimpleNamespace(launches=0, warp_add=warp_add, BUILD="sm_75", __file__="/x/_cuda.so")
    return stand_in


def fuse() -> tuple[torch.Tensor, torch.Tensor]:
    """The op on a tensor of the GPU, and the reference's answer."""
    face = torch.arange(12.0).view(1, 1, 3, 4) + 0.5
    theta = torch.eye(2, 3)[None] / 2
    fused = native._warp_add(face, theta, face.as_subclass(OnGpu))
    return fused.as_subclass(torch.Tensor), reference.warp_add(face, theta, face)


def test_what_runs_serves_and_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    module = counting(emulated)
    package(monkeypatch, module)
    for launches in (2, 3):
        found, expected = fuse()
        torch.testing.assert_close(found, expected)
        assert module.launches == launches
    assert modules.known_cuda_module(0) is module


@pytest.mark.parametrize("error", [OLD_DRIVER, OTHER_GPU, NEW_PTX])
def test_a_runtime_error_leads_to_the_reference_with_one_warning(
    error: str, monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    """The error comes out of the compiled module, as on a GPU: after the launch."""
    package(monkeypatch, emulated)
    compile_as(monkeypatch, emulated)
    monkeypatch.setenv("EMULATED_CUDA_ERROR", error)
    with pytest.warns(RuntimeWarning, match="using plain PyTorch, which is slower") as told:
        found, expected = fuse()
        torch.testing.assert_close(found, expected)
        fuse()
    assert len(told) == 1
    text = str(told[0].message)
    assert text.count(error) == 2  # packaged, and compiled at first use
    assert "the packaged" in text and "NVIDIA driver" in text and "$CUDACXX" in text
    monkeypatch.setattr(native, "choice", "native")
    with pytest.raises(NativeError, match=error):
        fuse()


def test_where_the_packaged_one_fails_first_use_compiles(
    monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    packaged, first, second = (
        counting(error=OTHER_GPU),
        counting(error=OLD_DRIVER),
        counting(emulated),
    )
    package(monkeypatch, packaged)
    compile_as(monkeypatch, first, second, counting(emulated))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = fuse()
    torch.testing.assert_close(found, expected)
    assert (packaged.launches, first.launches, second.launches) == (1, 1, 2)


def test_what_computes_nothing_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a launch that was dropped without an error."""
    package(monkeypatch, counting())
    text = modules.cuda_module(GPU)
    assert isinstance(text, str) and "2 + 2 is nan" in text


def test_an_older_gpu_is_not_tried(monkeypatch: pytest.MonkeyPatch, emulated: ModuleType) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    module = counting(emulated)
    package(monkeypatch, module)
    compile_as(monkeypatch, module)
    with pytest.warns(RuntimeWarning, match=r"capability 7\.5 or more, but cpu:0 has 6\.1"):
        found, expected = fuse()
    torch.testing.assert_close(found, expected)
    assert module.launches == 0


def test_each_gpu_is_tried(monkeypatch: pytest.MonkeyPatch, emulated: ModuleType) -> None:
    """Two of a kind share the compiled file, but one may be out of order."""
    module = counting(emulated)
    package(monkeypatch, module)
    assert modules.cuda_module(GPU) is module
    tried = []

    def try_out(module: ModuleType, device: torch.device) -> ModuleType:
        tried.append(device)
        raise NativeError("out of order")

    monkeypatch.setattr(modules, "try_out", try_out)
    other = torch.device("cpu", 1)
    assert "out of order" in str(modules.cuda_module(other))
    assert modules.cuda_module(GPU) is module
    assert tried == [other]


def test_memory_that_runs_out_says_nothing_about_the_module(
    monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    package(monkeypatch, emulated)
    full = torch.full

    def scarce(*arguments: Any, **options: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "full", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        modules.cuda_module(GPU)
    monkeypatch.setattr(torch, "full", full)
    assert modules.cuda_module(GPU) is emulated


def test_while_a_stream_is_recorded_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, emulated: ModuleType
) -> None:
    module = counting(emulated)
    package(monkeypatch, module)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert modules.cuda_module(GPU) is module
    assert module.launches == 0 and modules.known_cuda_module(0) is None
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert modules.cuda_module(GPU) is module
    assert module.launches == 1
