"""The CUDA module compiled on first use, where the installed package came without it."""

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
ROOT = PACKAGE.parent  # a checkout, or where packages are installed
Used = TypeVar("Used")


def cuda_module(capability: tuple[int, int], use: Callable[[Path], Used]) -> Used:
    """What `use` makes of the CUDA module for GPUs of one compute capability, compiled if need be.

    use: takes the module's file, and raises NativeError where that does not serve.
    The compilers of this machine take turns until one's module serves: first that of PyTorch's own
    CUDA version. The file lies in the user's cache ($XDG_CACHE_HOME/pcnn, ~/.cache/pcnn) under a
    name made of the sources' hash, the compiler's version, the capability and the Python version.
    A lock keeps two processes from compiling the same, and a file appears only once it is whole.
    Raises NativeError: no compiler, no pybind11, no cache, or why each compiler's does not serve.
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
    """The file of the CUDA module by one compiler. Raises NativeError: it cannot be made."""
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
        said = str(error.output).strip()
        raise NativeError(f"compiling the CUDA ops failed with {nvcc}:\n{said}") from error
    except ValueError as error:
        raise NativeError(str(error)) from error
    except OSError as error:
        raise NativeError(f"cannot compile into {folder} with {nvcc}: {error}") from error
    return path


def _compile(path: Path, nvcc: Path, number: int, include: list[str]) -> None:
    native, ptx = compiler.code_for(number, compiler.architectures(nvcc))
    if not native and ptx is None:
        raise NativeError(f"{nvcc} compiles for no GPU of compute capability {number / 10}")
    workplace = Path(tempfile.mkdtemp(dir=path.parent, prefix="build-"))
    try:
        compiler.cuda_module(
            workplace / path.name, sources(), include, compiler=nvcc, native=native, ptx=ptx
        )
        (workplace / path.name).replace(path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _include() -> list[str]:
    try:
        import pybind11  # only a build needs it; it comes with pcnn[cuda]
    except ImportError as error:
        raise NativeError(f"compiling the CUDA ops needs pybind11; {HINT}") from error
    return [sysconfig.get_path("include"), pybind11.get_include()]


def sources() -> Path:
    """The folder of the C++ and CUDA sources: in the package, or csrc/ of a checkout."""
    packaged = PACKAGE / "_csrc"
    return packaged if packaged.is_dir() else ROOT / "csrc"


def is_checkout() -> bool:
    """Whether this package lies beside its sources, as in a clone, and was not installed."""
    return sources().parent == ROOT and sources().is_dir()


def sources_hash() -> str:
    """A name for this version of the sources and of how they are compiled."""
    return compiler.sources_hash(sources())


def cache() -> Path:
    """The folder for compiled modules."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn" / "ops"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock; it ends with the process that held it, however that ended."""
    import fcntl  # not on Windows, where no kernels are compiled

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
