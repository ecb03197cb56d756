"""A classifier by TorchInductor, the compiler of torch.compile, ahead of time: code in a file.

torch.compile compiles anew wherever a call differs from those before, in its number of threads or
in a setting of the process: a wait of a minute in the midst of the work. Compiled ahead, the code
is loaded at the next start, serves any number of faces, and is never made again.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcnn.devices import instructions
from pcnn.engines.portable import Graph, quietly
from pcnn.errors import InputError, WeightsError


def write_compiled(graph: Graph, path: Path) -> None:
    """Compile a graph for the device that it is on into a file, .pt2.

    Raises InputError: it cannot be compiled here, as without a C++ compiler.
    """
    # As many threads as a caller has, not as this one; on a CPU weights become constants, in the
    # order that oneDNN likes best.
    options = {"cpp.dynamic_threads": True, "freezing": graph.example[0].device.type == "cpu"}
    try:
        with quietly(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                graph.program(), package_path=str(path), inductor_configs=options
            )
    except Exception as error:  # compilers have exceptions of their own
        raise InputError(
            f"engine='compile': PyTorch cannot compile here ({_summary(error)}): "
            "install a C++ compiler, such as g++, or use engine='torch'"
        ) from error


class Compiled:
    """A compiled graph's code: its inputs (B, …) to its outputs; B is at least 1.

    device: the one that it was compiled for. Threads take turns.
    Raises WeightsError: the file is none that PyTorch can load.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._device = path, device
        try:
            self._code: Callable[..., Any] = _load(path, device)
        except Exception as error:
            raise WeightsError(f"{path}: PyTorch cannot load it ({_summary(error)})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, and what is sent to another process, load it for themselves."""
        return Compiled, (self._path, self._device)

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, for inputs laid out in any way.

        The code takes their strides for those of its examples, and gives wrong answers for others:
        even those of a dimension of one, of which `contiguous` leaves any.
        """
        return list(self._code(*[values.reshape(-1).view(values.shape) for values in inputs]))


def _load(path: Path, device: torch.device) -> Callable[..., Any]:
    """The code in a file, on one GPU of several; alone on its stream, so that it can be recorded.

    Several runs side by side would have it ask the device for events, which no recording allows.
    """
    if device.type == "cpu":
        return torch._inductor.aoti_load_package(str(path))
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch._inductor.aoti_load_package(
        str(path), run_single_threaded=True, device_index=index
    )


def machine(device: torch.device) -> str:
    """What code is compiled for, and no other should run."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.version.cuda}"
    return " ".join((platform.machine(), platform.processor(), *sorted(instructions())))


def _summary(error: Exception) -> str:
    """The first two lines, as the first one may only say where something was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
