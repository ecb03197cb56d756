"""Building: without a compiler, and the CUDA module's compilation on first use, up to loading it.

The compiler of most tests is a script that stands in for nvcc; one test compiles with the true one.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pcnn.errors import NativeError
from pcnn.ops import build, compiler, native

ROOT = Path(__file__).parent.parent.parent
# Logs that it was called, waits a little, and "compiles" what -o names.
STAND_IN = """#!/bin/sh
if [ "$1" = --list-gpu-arch ]; then printf 'compute_90\\ncompute_75\\ncompute_130\\n'; exit; fi
echo "$@" >> "{log}"
sleep 0.1
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo compiled > "$2"; shift; done
{end}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The calls of a compiler that always succeeds; the cache is a fresh folder."""
    pytest.importorskip("pybind11")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "calls.log"
    stand_in(tmp_path, monkeypatch, "exit 0")
    yield path


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    compiler = folder / "nvcc"
    compiler.write_text(STAND_IN.format(log=folder / "calls.log", end=end))
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CUDACXX", str(compiler))


def test_compiled_once_into_the_cache(log: Path, tmp_path: Path) -> None:
    path = build.cuda_module((9, 0))
    assert path.read_text() == "compiled\n"
    assert path.parent == tmp_path / "cache" / "pcnn" / "ops"
    assert build.sources_hash() in path.name
    assert "sm90" in path.name
    calls = log.read_text().splitlines()
    assert len(calls) == 5  # three ops, the binding, the link
    assert all("arch=compute_90,code=sm_90" in call for call in calls if ".cu " in call)
    assert build.cuda_module((9, 0)) == path
    assert log.read_text().splitlines() == calls
    leftovers = [file.name for file in path.parent.iterdir() if file != path]
    assert leftovers == [f"{path.name}.lock"]


def test_another_gpu_or_source_is_compiled_anew(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.cuda_module((9, 0))
    assert build.cuda_module((7, 5)) != first
    monkeypatch.setattr(build, "sources_hash", lambda: "changed")
    assert build.cuda_module((9, 0)) != first
    assert len(log.read_text().splitlines()) == 15


def test_the_hash_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.sources_hash()
    shutil.copytree(build.sources(), tmp_path / "csrc")
    monkeypatch.setattr(build, "sources", lambda: tmp_path / "csrc")
    assert build.sources_hash() == before
    with (tmp_path / "csrc" / "maps.h").open("a") as file:
        file.write("// changed\n")
    assert build.sources_hash() != before


def test_a_gpu_newer_than_the_compiler_gets_portable_code(log: Path) -> None:
    build.cuda_module((12, 5))
    assert "-gencode=arch=compute_90,code=compute_90" in log.read_text()


def test_a_gpu_older_than_the_kernels_is_refused(log: Path) -> None:
    with pytest.raises(NativeError, match=r"compiles for no GPU of compute capability 6\.1"):
        build.cuda_module((6, 1))


def test_two_processes_compile_once(log: Path) -> None:
    code = "from pcnn.ops import build; print(build.cuda_module((9, 0)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tempfile.gettempdir(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {process.communicate(timeout=120)[0] for process in processes}
    assert len(paths) == 1
    assert all(process.returncode == 0 for process in processes)
    assert len(log.read_text().splitlines()) == 5


def test_failure_quotes_the_compiler_and_leaves_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "echo 'crop_regions.h(7): error: no such thing'; exit 2")
    with pytest.raises(NativeError, match=r"failed with .*nvcc:\n.*error: no such thing"):
        build.cuda_module((9, 0))
    assert [file.suffix for file in build.cache().iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(log: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(NativeError, match="cannot compile into"):
        build.cuda_module((9, 0))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "nvcc", lambda: None)
    with pytest.raises(
        NativeError, match=r"no CUDA compiler \(nvcc\) found; pip install 'pcnn\[cuda\]'"
    ):
        build.cuda_module((9, 0))


def test_no_pybind11(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybind11", None)
    with pytest.raises(NativeError, match="needs pybind11; pip install"):
        build.cuda_module((9, 0))


def test_a_file_that_is_no_module(log: Path) -> None:
    with pytest.raises(NativeError, match="cannot load the compiled"):
        native.load(build.cuda_module((9, 0)))


def test_failure_falls_back_with_one_warning(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a call with a tensor on a GPU would go, but for the tensor."""
    stand_in(tmp_path, monkeypatch, "echo 'nvcc: out of sorts'; exit 2")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(native, "_cuda_modules", {})
    monkeypatch.setattr(native, "_packaged", lambda name: (None, "not built"))
    monkeypatch.setattr(native, "_warned", set())

    class OnGpu:
        is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)

    with pytest.warns(RuntimeWarning, match=r"(?s)for cuda are not at hand.*nvcc: out of sorts"):
        assert native._serving("warp_add", OnGpu(), torch.float32) is None
    calls = log.read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native._serving("warp_add", OnGpu(), torch.float32) is None
    assert log.read_text() == calls  # not tried again in this process
    monkeypatch.setattr(native, "choice", "native")
    with pytest.raises(NativeError, match=r"(?s)warp_add: PCNN_OPS=native, but.*out of sorts"):
        native._serving("warp_add", OnGpu(), torch.float32)


@pytest.mark.skipif(compiler.nvcc() is None, reason="needs the CUDA compiler nvcc")
def test_the_true_compiler_makes_a_module_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pybind11")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = native.load(build.cuda_module((9, 0)))
    assert module.BUILD == "sm_90"
    # Past loading it needs a GPU; what it refuses, it refuses before that.
    with pytest.raises(ValueError, match="warp_add: dtype must be"):
        module.warp_add((8, 1, 1, 1, 1, 1, 1, 1, 1), 8, *[(8, 1, 1, 1, 1, 1, 1, 1, 1)] * 2, 9, 0, 0)


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the checkout")
@pytest.mark.parametrize("cuda", ["0", "1"])
def test_building_without_a_compiler(tmp_path: Path, cuda: str) -> None:
    """The package builds, with one clear warning; only PCNN_CUDA=1 makes it fail."""
    pytest.importorskip("pybind11")
    pytest.importorskip("setuptools")
    for name in ("setup.py", "pyproject.toml", "csrc", "pcnn"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(source, tmp_path / name, ignore=ignore) if source.is_dir() else shutil.copy(
            source, tmp_path
        )
    environment = {
        **os.environ,
        "CC": "/nonexistent/cc",
        "CXX": "/nonexistent/c++",
        "PCNN_CUDA": cuda,
        "CUDACXX": "",
        "CUDA_HOME": "",
        "PATH": "/nonexistent",
    }
    if cuda == "1" and Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("there is an nvcc in /usr/local/cuda that cannot be hidden")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.count("warning: pcnn: the CPU ops could not be compiled") == 1
    if cuda == "1":
        assert done.returncode != 0
        assert "PCNN_CUDA=1, but no nvcc was found" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("pcnn: built no compiled ops") == 1
    assert not list((tmp_path / "pcnn").glob("*.so"))
