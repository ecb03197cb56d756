"""Ahead-of-time compilation of a classifier by TorchInductor, the compiler of torch.compile.

torch.compile compiles again if a call has a new number of threads or new process settings. That
interrupts the work for a minute. A file compiled ahead of time is loaded at the next start, takes
any number of faces, and is never compiled again.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.devices import instructions
from pcnn.engines.portable import Graph, without_messages
from pcnn.errors import InputError, WeightsError


def write_compiled(graph: Graph, path: Path) -> None:
    """Compile a graph for its device into a .pt2 file.

    Raises InputError: the graph cannot be compiled here, for example without a C++ compiler, or
        not be loaded.
    """
    _check_loading(graph.example[0].device)
    # The code uses the caller's number of threads, not the present one. On a CPU weights become
    # constants in oneDNN's preferred order.
    options = {"cpp.dynamic_threads": True, "freezing": graph.example[0].device.type == "cpu"}
    try:
        with without_messages(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                graph.program(), package_path=str(path), inductor_configs=options
            )
    except Exception as error:  # compilers have their own exceptions
        raise InputError(
            f"engine='compile': PyTorch cannot compile here ({_summary(error)}): "
            "install a C++ compiler, such as g++, or use engine='torch'"
        ) from error


class Compiled:
    """A compiled graph: a function from inputs (B, …) to outputs; B is at least 1.

    device: the device for which it was compiled. Threads take turns.
    Raises WeightsError: PyTorch cannot load the file.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        try:
            self._code: Callable[..., Any] = _load(path, device)
        except Exception as error:
            raise WeightsError(f"{path}: PyTorch cannot load it ({_summary(error)})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Arguments for a copy, also in another process. A copy loads the file again."""
        return Compiled, (self._path, self._device)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs for inputs of any memory layout.

        The code assumes the strides of its examples and gives wrong answers for others. This also
        holds for dimensions of size one, whose strides `contiguous` does not change.
        """
        return list(self._code(*[values.reshape(-1).view(values.shape) for values in inputs]))


def _load(path: Path, device: torch.device) -> Callable[..., Any]:
    """Load the code from a file, for one run at a time, so that a CUDA graph can record it.

    Code for parallel runs queries events of the device, which is forbidden during a recording.
    """
    if device.type == "cpu":
        return torch._inductor.aoti_load_package(str(path))
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch._inductor.aoti_load_package(
        str(path), run_single_threaded=True, device_index=index
    )


def _check_loading(device: torch.device) -> None:
    """Raise InputError if this PyTorch cannot load code for a certain GPU."""
    known = inspect.signature(torch._inductor.aoti_load_package).parameters
    if device.type != "cpu" and "device_index" not in known:
        raise InputError(
            f"engine='compile': PyTorch {torch.__version__} cannot load compiled code for a GPU: "
            "install 2.7.1 or later, or use engine='torch'"
        )


def machine(device: torch.device) -> str:
    """A description of the hardware for which code is compiled."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.version.cuda}"
    return " ".join((platform.machine(), platform.processor(), *sorted(instructions())))


def _summary(error: Exception) -> str:
    """The first two lines of an error; the first one may name only its place in the code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
