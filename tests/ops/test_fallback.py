"""Without the compiled code, or told not to use it, the package computes the same."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch

from pcnn import ops
from pcnn.errors import NativeError
from pcnn.ops import native, outputs, reference

HIDE = "import sys; sys.modules['pcnn._C'] = None\n"  # as if the file had been deleted
CALLS = """
import torch, warnings
from pcnn import ops
maps = [torch.arange(4.0).view(1, 1, 2, 2)] * 4 + [torch.ones(1, 1, 2, 4)]
stitched = ops.stitch_regions(maps, (5, 4))
fused = ops.warp_add(stitched, torch.eye(2, 3)[None], stitched)
image = torch.arange(60, dtype=torch.uint8).view(4, 5, 3)
views = ops.crop_regions(image, torch.eye(2, 3)[None, None], [(3, 3)], mean=(0.5,), std=(0.2,))
anchors = torch.tensor([[9.0, 9, 8, 8], [10, 9, 8, 8]])
found = ops.decode_faces(
    torch.ones(1, 2, 15), anchors, variances=(0.1, 0.2), min_score=0.5, iou=0.4, most=3
)
print(ops.describe())
results = torch.cat([one.flatten() for one in (fused, views[0], found)])
print([round(value, 3) for value in results.tolist()])
"""


@functools.cache  # starting a Python with torch takes seconds
def python(code: str, choice: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PCNN_OPS"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    if choice is not None:
        environment["PCNN_OPS"] = choice
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tempfile.gettempdir(),  # in the checkout, its own pcnn would come before the installed
        capture_output=True,
        text=True,
        check=False,
    )


def result(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout.splitlines()[1]


def test_without_the_compiled_module_there_is_one_note_and_the_same_result() -> None:
    done = python(HIDE + CALLS)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the compiled ops for cpu are not available") == 1
    assert "('warp_add', 'CPU reference (not built:" in done.stdout
    assert result(done) == result(python(HIDE + CALLS, "reference"))
    if native._C is not None:
        assert result(done) == result(python(CALLS, "native"))


def test_reference_is_used_without_a_note() -> None:
    done = python(HIDE + CALLS, "reference")
    assert (done.returncode, done.stderr) == (0, "")
    assert "reference (plain PyTorch), chosen by PCNN_OPS" in done.stdout


def test_native_refuses_to_fall_back() -> None:
    done = python(HIDE + CALLS, "native")
    assert done.returncode == 1
    assert (
        "NativeError: stitch_regions: PCNN_OPS=native, but the compiled ops for cpu" in done.stderr
    )


def test_an_unknown_choice_is_refused() -> None:
    done = python("import pcnn.ops", "fast")
    assert done.returncode == 1
    assert "PCNN_OPS must be one of auto, native, reference, got 'fast'" in done.stderr


def test_float64_falls_back_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    face = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    theta = torch.eye(2, 3, dtype=torch.float64)[None] / 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ops.warp_add(face, theta, face), reference.warp_add(face, theta, face))
    monkeypatch.setattr(native, "choice", "native")
    with pytest.raises(NativeError, match=r"torch\.float64 has no compiled version, only"):
        ops.warp_add(face, theta, face)


@pytest.mark.skipif(native._C is None, reason="the CPU ops are not built")
def test_what_the_compiled_code_refuses_is_an_input_error() -> None:
    from pcnn.errors import InputError

    with pytest.raises(InputError, match="warp_add: stitched, face and out must have one shape"):
        torch.ops.pcnn.warp_add(torch.ones(1, 1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 1, 3, 3))


@pytest.mark.skipif(native._C is None, reason="the CPU ops are not built")
def test_the_cpu_code_gets_no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the CUDA kernels write to one."""

    def refuse(*_: object) -> tuple[torch.Tensor, ...]:
        raise AssertionError("a workspace was made")

    monkeypatch.setattr(outputs, "faces_work", refuse)
    predictions, anchors = torch.ones(1, 3, 15), torch.ones(3, 4)
    options = {"variances": (0.1, 0.2), "min_score": 0.5, "iou": 0.4, "most": 9}
    assert ops.decode_faces(predictions, anchors, **options)[0, 0, 0] == 1


# Plain PyTorch's own threads hang in a child of a process that has used them.
@pytest.mark.skipif(native._C is None, reason="the CPU ops are not built")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_works_in_a_forked_child() -> None:
    """A data loader's worker is a fork of a process that may have run ops on many threads."""
    code = (
        CALLS
        + """
import os, signal
big = torch.zeros(300, 300, 3, dtype=torch.uint8)
one = torch.eye(2, 3)[None, None]
crop = lambda: ops.crop_regions(big, one, [(300, 300)], mean=(0.5,), std=(0.2,))
crop()
warnings.simplefilter("ignore")  # newer Pythons warn of forking at all
child = os.fork()
if child == 0:
    signal.alarm(60)
    crop()
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_the_package_has_its_sources() -> None:
    from pcnn.ops import build

    names = {path.name for path in Path(build.sources()).iterdir()}
    assert {"bindings.cpp", "crop_regions_cuda.cu", "stitch_regions.h", "warp_add.h"} <= names
