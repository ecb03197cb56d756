"""Compilation of the CUDA module, for setup.py and for the first use.

This file uses only the standard library: setup.py loads it without torch and pcnn.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The oldest and newest compute capability with native machine code.
OLDEST, NEWEST = 75, 120
# GPUs of boards with a processor (Orin, Thor). Their machine code is incompatible with that of
# cards (CUDA programming guide, binary compatibility).
_BOARDS = (87, 88, 101, 110)

# Each operation rounds once, as in the CPU code. With other rounding, other positions may overflow.
# Memory limits the kernels, so fused multiply-adds would not be faster.
NVCC_FLAGS = ("-std=c++17", "-O3", "--fmad=false", "-Xcompiler=-fPIC,-fvisibility=hidden")


def nvccs(major: int | None = None) -> list[Path]:
    """The CUDA compilers of this machine, in the order to try them; may be empty.

    major: the preferred major CUDA version; with PyTorch's own, both need the same driver.
    $CUDACXX always comes first. A compiler of unknown version comes last.
    """
    named = os.environ.get("CUDACXX")

    def rank(candidate: Path) -> int:
        if named and candidate == Path(named):
            return 0
        try:
            own = int(version(candidate).partition(".")[0])
        except (OSError, ValueError, subprocess.CalledProcessError):
            return 3
        return 1 if major in (None, own) else 2

    return sorted(_candidates(), key=rank)


def _candidates() -> list[Path]:
    """Executable files: $CUDACXX, $CUDA_HOME, the path, /usr/local/cuda*, pip's packages."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [
        os.environ.get("CUDACXX"),
        f"{home}/bin/nvcc" if home else None,
        shutil.which("nvcc"),
        "/usr/local/cuda/bin/nvcc",
        *map(str, sorted(Path("/usr/local").glob("cuda-*/bin/nvcc"), reverse=True)),
        *(
            str(path)
            for folder in sys.path
            for pattern in ("cu[0-9]*", "cuda_nvcc")
            for path in sorted(Path(folder, "nvidia").glob(f"{pattern}/bin/nvcc"), reverse=True)
        ),
    ]
    found: dict[Path, Path] = {}  # without several links to the same file
    for place in places:
        if place and Path(place).is_file() and os.access(place, os.X_OK):
            found.setdefault(Path(place).resolve(), Path(place))
    return list(found.values())


def version(compiler: Path) -> str:
    """An nvcc's version, such as 13.0.88.

    Raises OSError, subprocess.CalledProcessError: it does not run. Raises ValueError: its output
    has no version.
    """
    text = run([str(compiler), "--version"])
    found = re.search(r"\bV(\d+(?:\.\d+)+)", text) or re.search(r"release (\d+(?:\.\d+)+)", text)
    if found is None:
        raise ValueError(f"{compiler} --version prints no version: {text.strip()!r}")
    return found[1]


def architectures(compiler: Path) -> list[int]:
    """The compute capabilities (75 = 7.5) of this nvcc from OLDEST to NEWEST, ascending."""
    listed = run([str(compiler), "--list-gpu-arch"]).split()
    numbers = (name.removeprefix("compute_") for name in listed)
    known = sorted(int(number) for number in numbers if number.isdigit())
    return [number for number in known if OLDEST <= number <= NEWEST]


def code_for(number: int, known: Sequence[int]) -> tuple[list[int], int | None]:
    """The code to compile for one GPU: (machine code, portable code) as for `cuda_module`.

    number: the GPU's compute capability. known: the capabilities of the compiler.
    Machine code of a lower minor version runs on a GPU of the same major version. PTX needs a
    driver as new as the compiler, so it is used only for GPUs of a newer major version.
    Returns ([], None) if neither is possible.
    """
    if number in known:
        return [number], None
    older = [n for n in known if n < number and n not in _BOARDS]
    alike = [n for n in older if n // 10 == number // 10]
    if alike and number not in _BOARDS:
        return [max(alike)], None
    return [], max(older, default=None)


def sources_hash(csrc: Path) -> str:
    """A hash of the sources in a folder and of the way they are compiled, 16 characters.

    Each compiled module contains it (`SOURCES`), so that a module of other sources is recognised.
    """
    digest = hashlib.sha256()
    sources = (path for path in csrc.iterdir() if path.suffix in (".h", ".cpp", ".cu"))
    for path in (*sorted(sources), Path(__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cuda_module(  # noqa: PLR0913
    out: Path,
    csrc: Path,
    include: Sequence[str],
    *,
    compiler: Path,
    native: Sequence[int],
    ptx: int | None = None,
    strict: bool = False,
) -> None:
    """Compile csrc's kernels and their Python binding into the extension module `out`.

    include: folders with Python's and pybind11's headers.
    native: compute capabilities for machine code. ptx: a compute capability for portable code,
        from which a driver makes machine code for newer GPUs.
    strict: treat warnings as errors.
    Raises subprocess.CalledProcessError with the compiler's output in `.output`.
    """
    # Absolute paths, because commands may run in another folder.
    out, csrc, nvcc = out.absolute(), csrc.absolute(), str(compiler.absolute())
    objects = out.parent / f"{out.name}.objects"
    objects.mkdir(parents=True, exist_ok=True)
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in native]
    if ptx is not None:
        targets.append(f"-gencode=arch=compute_{ptx},code=compute_{ptx}")
    flags = [*NVCC_FLAGS, *targets]
    if strict:
        flags += ["-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror"]
    build = ", ".join([*(f"sm_{n}" for n in native), *([f"PTX {ptx}"] if ptx else [])])
    host = ["-std=c++17", "-O1", "-Xcompiler=-fPIC,-fvisibility=hidden", "-DPCNN_WITH_CUDA"]
    host += [f'-DPCNN_BUILD="{build}"', f'-DPCNN_SOURCES="{sources_hash(csrc)}"']
    host += [f"-I{Path(folder).absolute()}" for folder in include]
    commands = [[nvcc, *host, "-c", str(csrc / "bindings.cpp"), "-o", str(objects / "bindings.o")]]
    for source in sorted(csrc.glob("*_cuda.cu")):
        target = objects / f"{source.stem}.o"
        commands.append([nvcc, *flags, "-c", str(source), "-o", str(target)])
    _run_in_parallel(commands, objects)
    # The runtime is linked statically, so that the module needs only the driver's CUDA library.
    link = ["-shared", "-cudart=static", *(command[-1] for command in commands)]
    run([nvcc, *link, "-o", str(out)])
    shutil.rmtree(objects)


def _run_in_parallel(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run commands in parallel; with ninja if available, which respects the number of processors.

    The last word of each command is the file in `folder` that it makes.
    Raises subprocess.CalledProcessError: a command failed.
    """
    ninja = _ninja()
    if ninja is None:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(run, commands))
        return
    lines = ["rule run", "  command = $line", "  description = $out"]
    for command in commands:
        line = shlex.join(command).replace("$", "$$")
        lines += [f"build {Path(command[-1]).name}: run", f"  line = {line}"]
    (folder / "build.ninja").write_text("\n".join([*lines, ""]))
    run([ninja, "-C", str(folder)])


def _ninja() -> str | None:
    """The build tool ninja from the path or beside this Python; None if it does not run."""
    for place in (shutil.which("ninja"), str(Path(sysconfig.get_path("scripts"), "ninja"))):
        try:
            run([place or "", "--version"])
        except (OSError, subprocess.CalledProcessError):
            continue
        return place
    return None


def run(command: Sequence[str]) -> str:
    """A command's output. Raises subprocess.CalledProcessError with all output in `.output`."""
    done = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout


def module_suffix() -> str:
    """The suffix of extension modules in this Python."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))
