"""How the CUDA module is compiled: one recipe for setup.py and for the first use.

Standard library only: setup.py loads this file where neither torch nor pcnn is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The oldest and newest compute capability that kernels are compiled for natively.
OLDEST, NEWEST = 75, 120

# One rounding for each operation, as in the CPU code: a position that is rounded otherwise may
# overflow otherwise. The kernels wait for memory, so fused multiply-adds would gain nothing.
NVCC_FLAGS = ("-std=c++17", "-O3", "--fmad=false", "-Xcompiler=-fPIC,-fvisibility=hidden")


def nvcc() -> Path | None:
    """The CUDA compiler: $CUDACXX, $CUDA_HOME, the path, /usr/local/cuda, or pip's package."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [
        os.environ.get("CUDACXX"),
        f"{home}/bin/nvcc" if home else None,
        shutil.which("nvcc"),
        "/usr/local/cuda/bin/nvcc",
        *(f"{folder}/nvidia/cu13/bin/nvcc" for folder in sys.path),
    ]
    for candidate in candidates:
        if candidate and Path(candidate).is_file() and os.access(candidate, os.X_OK):
            return Path(candidate)
    return None


def architectures(compiler: Path) -> list[int]:
    """The compute capabilities (75 = 7.5) from OLDEST to NEWEST that this nvcc knows, ascending."""
    listed = run([str(compiler), "--list-gpu-arch"]).split()
    known = sorted(int(name.removeprefix("compute_")) for name in listed)
    return [number for number in known if OLDEST <= number <= NEWEST]


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
    native: compute capabilities to make machine code for; ptx: one to make portable code for,
        from which a driver makes machine code for newer GPUs.
    strict: warnings are errors.
    Raises subprocess.CalledProcessError with the compiler's words in `.output`.
    """
    objects = out.parent / f"{out.name}.objects"
    objects.mkdir(parents=True, exist_ok=True)
    targets = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in native]
    if ptx is not None:
        targets.append(f"-gencode=arch=compute_{ptx},code=compute_{ptx}")
    flags = [*NVCC_FLAGS, *targets]
    if strict:
        flags += ["-Werror=all-warnings", "-Xcompiler=-Wall,-Wextra,-Werror"]
    build = ", ".join(f"sm_{n}" for n in native) + (f" and PTX {ptx}" if ptx else "")
    host = ["-std=c++17", "-O1", "-Xcompiler=-fPIC,-fvisibility=hidden", "-DPCNN_WITH_CUDA"]
    host += [f'-DPCNN_BUILD="{build}"', *(f"-I{folder}" for folder in include)]
    commands = [[*host, "-c", str(csrc / "bindings.cpp"), "-o", str(objects / "bindings.o")]]
    for source in sorted(csrc.glob("*_cuda.cu")):
        commands.append([*flags, "-c", str(source), "-o", str(objects / f"{source.stem}.o")])
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda arguments: run([str(compiler), *arguments]), commands))
    # The runtime is linked in, so that the module needs no CUDA library but the driver's.
    link = ["-shared", "-cudart=static", *(command[-1] for command in commands)]
    run([str(compiler), *link, "-o", str(out)])
    shutil.rmtree(objects)


def run(command: Sequence[str]) -> str:
    """A command's output. Raises subprocess.CalledProcessError with all it said in `.output`."""
    done = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout


def module_suffix() -> str:
    """The ending of an extension module's file name in this Python."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))
