"""The CUDA module compiled for the CPU: the kernels themselves, run without a GPU."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

from pcnn.ops import build, compiler, modules

HERE = Path(__file__).parent
# A launch becomes a call; where device code has a line of machine code, the host's C++ is taken.
LAUNCH = re.compile(r"(\w+(?:<[\w, ]+>)?)<<<(.+?)>>>\((.*?)\);", re.DOTALL)
MACHINE_CODE = re.compile(r"#ifdef __CUDA_ARCH__(?=[^#]*\basm\b)")
COMPILER = os.environ.get("CXX", "g++")
FLAGS = (
    *("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter"),
    # Packs as device code moves them, held to their alignment.
    *("-D__CUDA_ARCH__=900", "-DPCNN_WITH_CUDA"),
    *('-DPCNN_BUILD="emulated"', '-DPCNN_SOURCES="emulated"'),
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),
)
if os.environ.get("PCNN_SANITIZE") == "1":  # make sanitize, which preloads the runtimes
    FLAGS = (*FLAGS[:-2], "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def load() -> ModuleType:
    """The module, compiled once into the user's cache for each state of what it is made of."""
    import pybind11

    digest = hashlib.sha256(repr((FLAGS, pybind11.__version__)).encode())
    digest.update(compiler.run([COMPILER, "--version"]).encode())
    for file in (Path(__file__), HERE / "cuda_runtime.h", *sorted(build.sources().iterdir())):
        digest.update(file.read_bytes())
    folder = build.cache()
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"_emulated-{digest.hexdigest()[:16]}{compiler.module_suffix()}"
    with build._lock(out.with_suffix(".lock")):
        if not out.exists():
            with tempfile.TemporaryDirectory(dir=folder) as workplace:
                include = (pybind11.get_include(), sysconfig.get_paths()["include"])
                _compile(Path(workplace), include).rename(out)
    return modules.load(out)


def _compile(folder: Path, include: tuple[str, ...]) -> Path:
    shutil.copytree(build.sources(), folder, dirs_exist_ok=True)
    for file in (folder / "numeric.h", *folder.glob("*.cu")):
        text = MACHINE_CODE.sub("#ifdef PCNN_MACHINE_CODE", file.read_text())
        text = LAUNCH.sub(r"launch_on_cpu(\2, [&] { \1(\3); });", text)
        assert "<<<" not in text
        file.with_suffix(".cpp" if file.suffix == ".cu" else ".h").write_text(text)
    out = folder / "module.so"
    sources = [str(folder / "bindings.cpp"), *map(str, folder.glob("*_cuda.cpp"))]
    folders = [f"-I{path}" for path in (HERE, *include)]
    compiler.run([COMPILER, *FLAGS, *folders, *sources, "-o", str(out)])
    return out
