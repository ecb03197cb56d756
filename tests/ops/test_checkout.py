"""From inside a clone, which hides the installed package: compiled ops, and what is measured."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pcnn.ops import build, compiler, native

ROOT = Path(__file__).parent.parent.parent
CODE = """
import torch
from pcnn import ops
from pcnn.ops import native
print(native.__file__, native._C and native._C.__file__)
ops.warp_add(torch.ones(1, 1, 2, 2), torch.eye(2, 3)[None], torch.ones(1, 1, 2, 2))
"""

pytestmark = pytest.mark.skipif(not build.is_checkout(), reason="needs the checkout")
needs_native = pytest.mark.skipif(
    native._C is None or getattr(native._C, "SOURCES", "") != build.sources_hash(),
    reason="needs the CPU ops, built from these sources",
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout in which nothing was built."""
    for name in ("pcnn", "csrc"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "clone" / name, ignore=ignore)
    return tmp_path / "clone"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, of which pcnn has its compiled ops."""
    package = tmp_path / "site" / "pcnn"
    shutil.copytree(ROOT / "pcnn", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copytree(ROOT / "csrc", package / "_csrc")
    if native._C is not None:
        shutil.copy(str(native._C.__file__), package / f"_C{compiler.module_suffix()}")
    return tmp_path / "site"


def run_in(clone: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    paths = [path for path in sys.path if path and Path(path).resolve() != ROOT.resolve()]
    environment = {name: value for name, value in os.environ.items() if name != "PCNN_OPS"}
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, folders), *paths])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(clone)), "the checkout comes first"
    return done


@needs_native
def test_the_installed_module_serves_where_its_sources_are_the_same(
    clone: Path, site: Path
) -> None:
    done = run_in(clone, site)
    assert done.stdout.split()[1] == str(site / "pcnn" / f"_C{compiler.module_suffix()}")
    assert done.stderr == ""


@needs_native
def test_a_module_of_other_sources_is_left_alone(clone: Path, site: Path) -> None:
    with (clone / "csrc" / "maps.h").open("a") as file:
        file.write("// changed\n")
    done = run_in(clone, site)
    assert done.stdout.split()[1] == "None"
    told = [line for line in done.stderr.splitlines() if "pcnn:" in line]
    assert len(told) == 1
    assert f"{site / 'pcnn'}" in told[0] and "has other sources" in told[0]
    assert "python setup.py build_ext --inplace" in told[0]


def test_a_clone_alone_says_what_to_do(clone: Path) -> None:
    with (clone / "csrc" / "maps.h").open("a") as file:
        file.write("// unlike any pcnn that may be installed here\n")
    done = run_in(clone)
    assert done.stdout.split()[1] == "None"
    told = [line for line in done.stderr.splitlines() if "pcnn:" in line]
    assert len(told) == 1
    assert f"{clone} has no compiled ops" in told[0]
    assert "compile them there: python setup.py build_ext --inplace" in told[0]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/shared.py."""
    path = ROOT / "benchmarks" / "shared.py"
    spec = importlib.util.spec_from_file_location("shared_by_benchmarks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(native, "choice", "auto")
    return module


def test_benchmarks_measure_compiled_ops_of_these_sources(
    shared: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(SOURCES=build.sources_hash(), __file__="_C.so")
    monkeypatch.setattr(native, "_C", here)
    shared.require_native()
    here.SOURCES = "of yesterday"
    with pytest.raises(SystemExit, match=r"_C\.so was compiled from other sources"):
        shared.require_native()
    monkeypatch.setattr(native, "_C", None)
    monkeypatch.setattr(native, "_C_missing", "none built")
    with pytest.raises(SystemExit, match=r"for cpu are not: none built\n.*PCNN_OPS=reference"):
        shared.require_native()
    with pytest.raises(SystemExit, match="no compiled ops for mps"):
        shared.require_native("mps")
    monkeypatch.setattr(native, "choice", "reference")
    shared.require_native()
