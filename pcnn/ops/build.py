"""The CUDA module compiled on first use, where the installed package came without it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcnn.errors import NativeError
from pcnn.ops import compiler

HINT = "pip install 'pcnn[cuda]' brings the compiler"
_PACKAGE = Path(__file__).resolve().parents[1]


def cuda_module(capability: tuple[int, int]) -> Path:
    """The file of the CUDA module for GPUs of one compute capability; compiled if need be.

    It lies in the user's cache ($XDG_CACHE_HOME/pcnn, ~/.cache/pcnn) under a name made of the
    sources' hash, the capability and the Python version. A lock keeps two processes from
    compiling the same, and the file appears under its name only once it is whole.
    Raises NativeError: no compiler, no pybind11, or the compiler's own words.
    """
    nvcc = compiler.nvcc()
    if nvcc is None:
        raise NativeError(f"no CUDA compiler (nvcc) found; {HINT}")
    folder = cache()
    name = f"_cuda-{sources_hash()}-sm{capability[0]}{capability[1]}{compiler.module_suffix()}"
    path = folder / name
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{name}.lock"):
            if not path.exists():  # else another process was faster
                _compile(path, nvcc, 10 * capability[0] + capability[1])
    except OSError as error:
        raise NativeError(f"cannot compile into {folder}: {error}") from error
    return path


def _compile(path: Path, nvcc: Path, number: int) -> None:
    workplace = Path(tempfile.mkdtemp(dir=path.parent, prefix="build-"))
    try:
        known = compiler.architectures(nvcc)
        native = [number] if number in known else []
        # A GPU newer than the compiler runs portable code; an older one has no way.
        ptx = None if native else max((n for n in known if n < number), default=None)
        if not native and ptx is None:
            raise NativeError(f"{nvcc} compiles for no GPU of compute capability {number / 10}")
        compiler.cuda_module(
            workplace / path.name, sources(), _include(), compiler=nvcc, native=native, ptx=ptx
        )
        (workplace / path.name).replace(path)
    except subprocess.CalledProcessError as error:
        raise NativeError(
            f"compiling the CUDA ops failed with {nvcc}:\n{error.output.strip()}"
        ) from error
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
    packaged = _PACKAGE / "_csrc"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "csrc"


def sources_hash() -> str:
    """A name for this version of the sources and of how they are compiled."""
    digest = hashlib.sha256()
    for path in (*sorted(sources().iterdir()), Path(compiler.__file__)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


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
