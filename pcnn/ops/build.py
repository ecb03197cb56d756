"""Compilation of the CUDA module at its first use, if the package was built without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from pcnn.errors import NativeError
from pcnn.ops import compiler

HINT = "pip install 'pcnn[cuda]' installs the compiler"
PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent  # a checkout, or the folder of installed packages
Used = TypeVar("Used")


def cuda_module(capability: tuple[int, int], use: Callable[[Path], Used]) -> Used:
    """The result of `use` for the CUDA module of a compute capability, compiled if necessary.

    use: takes the module's file. It raises NativeError if the module does not work.
    The compilers of this machine are tried in turn until a module works. The first one has
    PyTorch's own CUDA version. The file is in the user's cache ($XDG_CACHE_HOME/pcnn or
    ~/.cache/pcnn). Its name contains the sources' hash and the versions of compiler, capability
    and Python. A lock prevents two processes from compiling the same module. A file appears only
    when it is complete.
    Raises NativeError: no compiler, no pybind11, no cache, or no module works. The message has
        the reason for each compiler.
    """
    torch_cuda = torch.version.cuda
    nvccs = compiler.nvccs(int(torch_cuda.partition(".")[0]) if torch_cuda else None)
    if not nvccs:
        raise NativeError(f"no CUDA compiler (nvcc) found; {HINT}")
    include = _include()
    failures = []
    tried = set()
    for nvcc in nvccs:
        try:
            path = _compiled(nvcc, 10 * capability[0] + capability[1], include)
            if path in tried:
                continue
            tried.add(path)
            return use(path)
        except NativeError as error:
            failures.append(str(error))
    raise NativeError("\n".join(failures))


def _compiled(nvcc: Path, number: int, include: list[str]) -> Path:
    """The file of the CUDA module from one compiler. Raises NativeError: it cannot be made."""
    folder = cache()
    try:
        version = compiler.version(nvcc)
        name = f"_cuda-{sources_hash()}-nvcc{version}-sm{number}{compiler.module_suffix()}"
        path = folder / name
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / f"{name}.lock"):
                if not path.exists():  # else another process was faster
                    _compile(path, nvcc, number, include)
    except subprocess.CalledProcessError as error:
        output = str(error.output).strip()
        raise NativeError(f"compiling the CUDA ops failed with {nvcc}:\n{output}") from error
    except ValueError as error:
        raise NativeError(str(error)) from error
    except OSError as error:
        raise NativeError(f"cannot compile into {folder} with {nvcc}: {error}") from error
    return path


def _compile(path: Path, nvcc: Path, number: int, include: list[str]) -> None:
    native, ptx = compiler.code_for(number, compiler.architectures(nvcc))
    if not native and ptx is None:
        raise NativeError(f"{nvcc} cannot compile for GPUs of compute capability {number / 10}")
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix="build-"))
    try:
        compiler.cuda_module(
            folder / path.name, sources(), include, compiler=nvcc, native=native, ptx=ptx
        )
        (folder / path.name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _include() -> list[str]:
    try:
        import pybind11  # needed only for compilation; part of pcnn[cuda]
    except ImportError as error:
        raise NativeError(f"compiling the CUDA ops needs pybind11; {HINT}") from error
    return [sysconfig.get_path("include"), pybind11.get_include()]


def sources() -> Path:
    """The folder of the C++ and CUDA sources: in the package, or csrc/ in a checkout."""
    packaged = PACKAGE / "_csrc"
    return packaged if packaged.is_dir() else ROOT / "csrc"


def is_checkout() -> bool:
    """Whether this package is in a checkout beside its sources, and not installed."""
    return sources().parent == ROOT and sources().is_dir()


def sources_hash() -> str:
    """A hash of the sources and of the way they are compiled."""
    return compiler.sources_hash(sources())


def cache() -> Path:
    """The folder for compiled modules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn" / "ops"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock of a file. The system releases it when the process ends."""
    import fcntl  # not available on Windows, where no kernels are compiled

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
