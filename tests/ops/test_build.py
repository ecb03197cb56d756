"""Building: without a compiler, and the CUDA module's compilation on first use, up to loading it.

The compiler of most tests is a script that stands in for nvcc; one test compiles with the true one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
import torch

from pcnn.errors import NativeError
from pcnn.ops import build, compiler, modules, native

ROOT = Path(__file__).parent.parent.parent
# Logs that it was called, waits a little, and "compiles" what -o names.
STAND_IN = """#!/bin/sh
if [ "$1" = --list-gpu-arch ]; then printf 'compute_90\\ncompute_75\\ncompute_130\\n'; exit; fi
if [ "$1" = --version ]; then echo 'Cuda compilation tools, release {cuda}, V{cuda}.7'; exit; fi
echo "$@" >> "{log}"
sleep 0.1
while [ $# -gt 1 ]; do [ "$1" != -o ] || echo compiled > "$2" || exit 1; shift; done
{end}
"""
Paths: TypeAlias = Sequence[Path]

# Calls of the compiler: four ops, the binding, the link.
STEPS = 6


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The calls of a compiler that always succeeds; the cache is a fresh folder."""
    pytest.importorskip("pybind11")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "calls.log"
    stand_in(tmp_path, monkeypatch, "exit 0")
    yield path


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, end: str, cuda: str = "13.0", others: Paths = ()
) -> Path:
    """A compiler of that CUDA version, whose calls end so; the only one but for `others`."""
    nvcc = folder / f"nvcc-{cuda}" / "nvcc"
    nvcc.parent.mkdir(exist_ok=True)
    nvcc.write_text(STAND_IN.format(log=folder / "calls.log", end=end, cuda=cuda))
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(compiler, "_candidates", lambda: [*others, nvcc])
    return nvcc


def test_compiled_once_into_the_cache(log: Path, tmp_path: Path) -> None:
    path = build.cuda_module((9, 0), Path)
    assert path.read_text() == "compiled\n"
    assert path.parent == tmp_path / "cache" / "pcnn" / "ops"
    assert build.sources_hash() in path.name
    assert "sm90" in path.name
    calls = log.read_text().splitlines()
    assert len(calls) == STEPS
    assert all("arch=compute_90,code=sm_90" in call for call in calls if ".cu " in call)
    assert build.cuda_module((9, 0), Path) == path
    assert log.read_text().splitlines() == calls
    leftovers = [file.name for file in path.parent.iterdir() if file != path]
    assert leftovers == [f"{path.name}.lock"]


def test_another_gpu_or_source_is_compiled_anew(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.cuda_module((9, 0), Path)
    assert build.cuda_module((7, 5), Path) != first
    monkeypatch.setattr(build, "sources_hash", lambda: "changed")
    assert build.cuda_module((9, 0), Path) != first
    assert len(log.read_text().splitlines()) == 3 * STEPS


def test_the_hash_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.sources_hash()
    shutil.copytree(build.sources(), tmp_path / "csrc")
    monkeypatch.setattr(build, "sources", lambda: tmp_path / "csrc")
    assert build.sources_hash() == before
    with (tmp_path / "csrc" / "maps.h").open("a") as file:
        file.write("// changed\n")
    assert build.sources_hash() != before


def test_a_gpu_newer_than_the_compiler_gets_portable_code(log: Path) -> None:
    build.cuda_module((12, 5), Path)
    assert "-gencode=arch=compute_90,code=compute_90" in log.read_text()


def test_a_gpu_a_little_newer_than_the_compiler_gets_machine_code(log: Path) -> None:
    build.cuda_module((9, 3), Path)
    calls = log.read_text()
    assert "-gencode=arch=compute_90,code=sm_90" in calls
    assert "code=compute_" not in calls


@pytest.mark.parametrize(
    ("number", "known", "expected"),
    [
        (86, [75, 80, 86, 90], ([86], None)),
        (89, [75, 80, 86], ([86], None)),
        (89, [75, 80, 86, 87, 90], ([86], None)),  # 8.7 is of a board, not of a card
        (121, [100, 120], ([120], None)),
        (103, [90, 100, 101], ([100], None)),
        (90, [75, 86, 87], ([], 86)),
        (130, [75, 90, 120], ([], 120)),
        (87, [75, 80, 86], ([], 86)),  # and the other way about
        (87, [75, 87], ([87], None)),
        (80, [86, 90], ([], None)),  # machine code does not run on an older GPU
        (75, [], ([], None)),
    ],
)
def test_what_is_compiled_for_a_gpu(
    number: int, known: list[int], expected: tuple[list[int], int | None]
) -> None:
    assert compiler.code_for(number, known) == expected


def test_another_version_of_the_compiler_compiles_anew(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.cuda_module((9, 0), Path)
    assert "nvcc13.0.7-" in first.name
    stand_in(tmp_path, monkeypatch, "exit 0", "13.1")
    assert "nvcc13.1.7-" in build.cuda_module((9, 0), Path).name


def test_a_compiler_that_fails_does_not_end_the_search(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stand_in(tmp_path, monkeypatch, "echo 'too old for it'; exit 2", "11.5")
    unwell = tmp_path / "nvcc"
    unwell.write_text("#!/bin/sh\nexit 3\n")
    unwell.chmod(0o755)
    stand_in(tmp_path, monkeypatch, "exit 0", "12.4", [old, unwell])
    assert "nvcc12.4.7-" in build.cuda_module((9, 0), Path).name
    stand_in(tmp_path, monkeypatch, "echo 'no such thing'; exit 2", "12.6", [old, unwell])
    with pytest.raises(NativeError, match=r"(?s)too old for it.*no such thing") as told:
        build.cuda_module((9, 0), Path)
    assert str(unwell) in str(told.value)


def test_a_module_that_does_not_serve_does_not_end_the_search(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that needs a newer driver, which is known once it has been compiled."""
    newer = stand_in(tmp_path, monkeypatch, "exit 0", "13.0")
    again = tmp_path / "again"
    shutil.copytree(newer.parent, again)
    stand_in(tmp_path, monkeypatch, "exit 0", "12.4", [newer, again / "nvcc"])
    asked = []

    def use(path: Path) -> Path:
        asked.append(path.name)
        if "nvcc13.0.7-" in path.name:
            raise NativeError("CUDA driver version is insufficient")
        return path

    assert "nvcc12.4.7-" in build.cuda_module((9, 0), use).name
    assert len(asked) == 2  # a second compiler of one version makes the same


def test_the_compiler_of_pytorch_s_own_version_comes_first(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eleven = stand_in(tmp_path, monkeypatch, "exit 0", "11.5")
    twelve = stand_in(tmp_path, monkeypatch, "exit 0", "12.4", [eleven])
    thirteen = stand_in(tmp_path, monkeypatch, "exit 0", "13.0", [eleven, twelve])
    monkeypatch.delenv("CUDACXX", raising=False)
    assert compiler.nvccs() == [eleven, twelve, thirteen]
    assert compiler.nvccs(13) == [thirteen, eleven, twelve]
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    assert "nvcc12.4.7-" in build.cuda_module((9, 0), Path).name
    eleven.write_text("#!/bin/sh\nexit 3\n")
    assert compiler.nvccs(12) == [twelve, thirteen, eleven]
    monkeypatch.setenv("CUDACXX", str(eleven))
    assert compiler.nvccs(12) == [eleven, twelve, thirteen]


def test_the_compilers_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = ["named/nvcc", "home/bin/nvcc", "path/nvcc", "site/nvidia/cu13/bin/nvcc"]
    for place in places:
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    (tmp_path / "site" / "nvidia" / "cu12" / "bin").mkdir(parents=True)
    (tmp_path / "site" / "nvidia" / "cu12" / "bin" / "nvcc").write_text("not executable")
    monkeypatch.setenv("CUDACXX", str(tmp_path / "named" / "nvcc"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    (tmp_path / "home" / "bin" / "link").symlink_to(tmp_path / "path" / "nvcc")
    found = [path for path in compiler._candidates() if path.is_relative_to(tmp_path)]
    assert found == [tmp_path / place for place in places]
    monkeypatch.setenv("CUDACXX", str(tmp_path / "home" / "bin" / "link"))
    found = [path for path in compiler._candidates() if path.is_relative_to(tmp_path)]
    assert [path.name for path in found] == ["link", "nvcc", "nvcc"]  # each once


@pytest.mark.parametrize("ninja", [True, False])
def test_files_are_compiled_with_and_without_ninja(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ninja: bool
) -> None:
    if ninja and compiler._ninja() is None:
        pytest.skip("needs ninja")
    if not ninja:
        monkeypatch.setattr(compiler, "_ninja", lambda: None)
    odd = tmp_path / "a folder of $5 & more"
    monkeypatch.setenv("XDG_CACHE_HOME", str(odd))
    path = build.cuda_module((9, 0), Path)
    assert path.read_text() == "compiled\n" and path.is_relative_to(odd)
    assert len(log.read_text().splitlines()) == STEPS
    assert f"-o {odd}" in log.read_text()
    stand_in(tmp_path, monkeypatch, "echo 'maps.h(7): error'; exit 2")
    with pytest.raises(NativeError, match=r"maps\.h\(7\): error"):
        build.cuda_module((7, 5), Path)


def test_a_ninja_that_does_not_run_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ninja = tmp_path / "ninja"
    ninja.write_text("#!/bin/sh\nexit 1\n")
    ninja.chmod(0o755)
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler._ninja() is None
    ninja.write_text("#!/bin/sh\nexit 0\n")
    assert compiler._ninja() == str(ninja)


def test_a_gpu_older_than_the_kernels_is_refused(log: Path) -> None:
    with pytest.raises(NativeError, match=r"cannot compile for GPUs of compute capability 6\.1"):
        build.cuda_module((6, 1), Path)


def test_two_processes_compile_once(log: Path) -> None:
    code = "from pcnn.ops import build; print(build.cuda_module((9, 0), str))"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "CUDACXX": str(log.parent / "nvcc-13.0" / "nvcc"),
    }
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
    assert len(log.read_text().splitlines()) == STEPS


def test_failure_quotes_the_compiler_and_leaves_nothing(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, "echo 'crop_regions.h(7): error: no such thing'; exit 2")
    with pytest.raises(NativeError, match=r"(?s)failed with \S*nvcc:\n.*error: no such thing"):
        build.cuda_module((9, 0), Path)
    assert [file.suffix for file in build.cache().iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(log: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(NativeError, match="cannot compile into"):
        build.cuda_module((9, 0), Path)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_candidates", list)
    with pytest.raises(
        NativeError, match=r"no CUDA compiler \(nvcc\) found; pip install 'pcnn\[cuda\]'"
    ):
        build.cuda_module((9, 0), Path)


def test_no_pybind11(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybind11", None)
    with pytest.raises(NativeError, match="needs pybind11; pip install"):
        build.cuda_module((9, 0), Path)


def test_a_file_that_is_no_module(log: Path) -> None:
    with pytest.raises(NativeError, match="cannot load the compiled"):
        build.cuda_module((9, 0), modules.load)


def test_failure_falls_back_with_one_warning(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a call with a tensor on a GPU would go, but for the tensor."""
    stand_in(tmp_path, monkeypatch, "echo 'nvcc: out of sorts'; exit 2")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(modules, "_cuda_modules", {})
    monkeypatch.setattr(modules, "packaged", lambda name: (None, "not built"))
    monkeypatch.setattr(native, "_warned", set())

    class OnGpu:
        is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)

    with pytest.warns(RuntimeWarning, match=r"(?s)for cuda are not available.*nvcc: out of sorts"):
        assert native._serving("warp_add", OnGpu(), torch.float32) is None
    calls = log.read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native._serving("warp_add", OnGpu(), torch.float32) is None
    assert log.read_text() == calls  # not tried again in this process
    monkeypatch.setattr(native, "choice", "native")
    with pytest.raises(NativeError, match=r"(?s)warp_add: PCNN_OPS=native, but.*out of sorts"):
        native._serving("warp_add", OnGpu(), torch.float32)


@pytest.mark.skipif(not compiler.nvccs(), reason="needs the CUDA compiler nvcc")
def test_the_true_compiler_makes_a_module_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pybind11")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = build.cuda_module((9, 0), modules.load)
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
    if cuda == "1" and list(Path("/usr/local").glob("cuda*/bin/nvcc")):
        pytest.skip("there is an nvcc in /usr/local that cannot be hidden")
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


def test_setup_tries_one_compiler_after_the_other(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    checkout = tmp_path / "checkout"
    for name in ("csrc", "pcnn"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    text = STAND_IN.format(log=log, end="echo 'out of sorts'; exit 2", cuda="11.5")
    for place, script in (
        ("old/nvcc", text),
        ("home/bin/nvcc", (tmp_path / "nvcc-13.0" / "nvcc").read_text()),
    ):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text(script)
        path.chmod(0o755)
    environment = {
        **os.environ,
        "CXX": "/nonexistent/c++",
        "PCNN_CUDA": "1",
        "PCNN_CUDA_ARCHS": "75",
        "CUDACXX": str(tmp_path / "old" / "nvcc"),
        "CUDA_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "built"]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "pcnn: built the CUDA ops (compute capability 75)" in done.stdout
    assert [path.read_text() for path in (checkout / "built" / "pcnn").glob("_cuda*")] == [
        "compiled\n"
    ]
