"""The compiled modules: search, test on a GPU, loading and calls."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from pcnn.errors import InputError, NativeError
from pcnn.ops import build, compiler

# Element types of the compiled code, and their numbers there (csrc/numeric.h).
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

# Index of a GPU → the module that works on it, or the reason for none.
_cuda_modules: dict[int, ModuleType | str] = {}
_search = threading.Lock()


def packaged(name: str) -> tuple[ModuleType | None, str]:
    """A compiled module of this package (_C or _cuda), or None and the reason.

    A checkout without its own module uses that of an installed pcnn with the same sources.
    """
    full_name = f"pcnn.{name}"
    own = Path(build.PACKAGE, name + compiler.module_suffix())
    if build.is_checkout() and not own.is_file() and full_name not in sys.modules:
        return _installed(name)
    try:
        return importlib.import_module(full_name), ""
    except ImportError as error:
        return None, str(error)


@functools.cache
def _installed(name: str) -> tuple[ModuleType | None, str]:
    """The module of an installed pcnn that this checkout hides; see packaged."""
    files = [Path(folder, "pcnn", name + compiler.module_suffix()) for folder in sys.path]
    # An import may find the module of another checkout, installed in place.
    found = importlib.util.find_spec(f"pcnn.{name}")
    files += [Path(found.origin)] if found and found.origin else []
    missing = f"{build.ROOT} has no compiled ops"
    for path in dict.fromkeys(file.resolve() for file in files if file.is_file()):
        # The file contains the hash of its sources. Code of other sources is not run.
        if build.sources_hash().encode() not in path.read_bytes():
            missing += f", and {path} has other sources"
            continue
        try:
            return load(path, name), ""
        except NativeError as error:
            missing += f", and {error}"
    return None, f"{missing}; compile them there: python setup.py build_ext --inplace"


def cuda_module(device: torch.device) -> ModuleType | str:
    """The kernels for a GPU, packaged or compiled at the first use; or the reason for none.

    A module must first compute one element on the GPU. That fails with a driver older than the
    compiler, or with kernels for other GPUs. Each process tests each GPU once.
    """
    found = _cuda_modules.get(device.index)
    if found is not None:
        return found
    index = torch.cuda.current_device() if device.index is None else device.index
    with _search:
        if index in _cuda_modules:
            return _cuda_modules[index]
        device = torch.device(device.type, index)
        with torch.cuda.device(device):
            untried = torch.cuda.is_current_stream_capturing()
        try:
            found = _find_cuda_module(device, untried)
        except NativeError as error:
            found = str(error)
        if not untried:
            _cuda_modules[index] = found
    return found


def known_cuda_module(index: int) -> ModuleType | str | None:
    """The earlier result of `cuda_module` for a GPU's index; None without one."""
    return _cuda_modules.get(index)


def _find_cuda_module(device: torch.device, untried: bool) -> ModuleType:
    """The module for cuda_module.

    untried: skip the test, because a stream is being recorded and must not wait for the GPU.
    Raises NativeError: there is none; the message has the reason.
    """
    major, minor = torch.cuda.get_device_capability(device)
    if 10 * major + minor < compiler.OLDEST:
        oldest = f"{compiler.OLDEST // 10}.{compiler.OLDEST % 10}"
        raise NativeError(
            f"the kernels need a GPU of compute capability {oldest} or more, but {device} has "
            f"{major}.{minor}"
        )
    failures = []
    module, _ = packaged("_cuda")
    try:
        if module is not None:
            return module if untried else try_out(module, device)
    except NativeError as error:
        failures.append(f"the packaged {error}")

    def use(path: Path) -> ModuleType:
        compiled = load(path)
        return compiled if untried else try_out(compiled, device)

    try:
        return build.cuda_module((major, minor), use)
    except NativeError as error:
        raise NativeError("\n".join([*failures, str(error)])) from error


def try_out(module: ModuleType, device: torch.device) -> ModuleType:
    """Test a module: run `warp_add` of one element on the device. Returns the module.

    Raises NativeError: it fails, or 2 + 2 gives another result than 4.
    """
    face = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float32, device=device)
    theta = torch.eye(2, 3, dtype=torch.float32, device=device)
    fused = torch.full_like(face, torch.nan)
    maps = (numbers(face), theta.data_ptr(), numbers(face), numbers(fused))
    try:
        call(module.warp_add, face, *maps, DTYPES[torch.float32])
        found = float(fused)  # waits for the device
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
    else:
        if found == 4.0:
            return module
        reason = f"2 + 2 is {found}"
    raise NativeError(
        f"{Path(str(module.__file__)).name} ({module.BUILD}) does not run on {device}: {reason}. "
        "Install a newer NVIDIA driver, or set $CUDACXX to an nvcc of PyTorch's own CUDA "
        f"{torch.version.cuda or 'version'}"
    )


def load(path: os.PathLike[str], name: str = "_cuda") -> ModuleType:
    """Load the module of a file. Raises NativeError: it cannot be loaded.

    name: the module's name when it was compiled, _C or _cuda.
    """
    # Each file gets its own module name. For a known name pybind11 returns the earlier module,
    # which may be for another GPU. Only the part after the last dot must match bindings.cpp.
    own_name = f"{os.fspath(path)}.{name}"
    loader = importlib.machinery.ExtensionFileLoader(own_name, os.fspath(path))
    spec = importlib.util.spec_from_file_location(own_name, path, loader=loader)
    try:
        assert spec is not None  # for mypy: a loader was given
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        raise NativeError(f"cannot load the compiled {path}: {error}") from error
    return module


def call(function: Callable[..., None], place: Tensor, *arguments: object) -> None:
    """Run a compiled op on a tensor's device: on the CPU's threads or the GPU's current stream.

    Raises InputError: the op refuses its arguments. Raises NativeError: the op fails.
    """
    try:
        if place.is_cpu:
            function(*arguments, torch.get_num_threads(), 0)
        else:
            stream = torch.cuda.current_stream(place.device)
            function(*arguments, stream.device_index, stream.cuda_stream)
    except ValueError as error:
        raise InputError(str(error)) from error
    except RuntimeError as error:
        raise NativeError(str(error)) from error


def numbers(tensor: Tensor) -> tuple[int, ...]:
    """A tensor as arguments of the compiled code: address, sizes, strides."""
    return (tensor.data_ptr(), *tensor.shape, *tensor.stride())
