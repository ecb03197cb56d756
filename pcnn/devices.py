"""Choice of the device, uploads to it, and PyTorch's settings while this package computes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pcnn.errors import InputError


def choose_device(device: str | torch.device, name: str) -> torch.device:
    """The requested device; "auto" means CUDA where available, else the CPU.

    "cuda" means the current GPU. The result includes its number, because the current GPU of
    another thread may differ.
    name: the argument's name in messages.
    Raises InputError: the device cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(device)
    except (RuntimeError, TypeError) as error:  # torch would list twenty kinds of hardware
        raise InputError(
            f"{name} {str(device)!r} cannot be used (expected auto, cpu, cuda, cuda:1, …)"
        ) from error
    try:
        chosen = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name} {str(device)!r} cannot be used ({error})") from error
    return chosen


def instructions() -> frozenset[str]:
    """The processor's instruction sets, as Linux names them; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(word for line in flags for word in line.partition(":")[2].split())


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device; on a CPU return the tensor itself.

    The copy to a GPU uses pinned memory and is asynchronous.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def own_settings(*, gradients: bool = False) -> Iterator[None]:
    """This package's settings of PyTorch, whatever the caller's are: float32, CPU, no autocast.

    gradients: True enables gradients, even if the caller has disabled them.

    Public functions use it as a context, or as a decorator of a function that is no generator. It
    applies only to the calling thread. Other threads keep the caller's settings, and threads
    started inside must use it themselves. With PyTorch's default settings it changes nothing.
    """
    _use_one_thread_after_fork()
    with contextlib.ExitStack() as entered:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                entered.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_dtype() != torch.float32:
            entered.enter_context(_Float32())
        if torch.get_default_device().type != "cpu":
            entered.enter_context(torch.device("cpu"))
        if gradients:
            entered.enter_context(torch.inference_mode(False))
            entered.enter_context(torch.enable_grad())
        yield


# The process that first called a public function; PyTorch's threads exist only in it.
_user: int | None = None


def _use_one_thread_after_fork() -> None:
    """Make PyTorch use one thread in a forked child if the parent has used this package.

    The parent's other threads do not exist in the child, and OpenMP would wait for them forever.
    """
    global _user  # noqa: PLW0603 - a process has one such state
    process = os.getpid()
    if _user is None:
        _user = process
    elif _user != process:
        torch.set_num_threads(1)
        _user = process


def check_process(made_in: int, what: str) -> None:
    """Raise InputError if an object that does not survive a fork is used in a forked child.

    made_in: the id of the process that made it. what: its name in the message.
    """
    if os.getpid() != made_in:
        raise InputError(
            f"{what} was made before this process was forked, but its threads or its GPU do not "
            "survive a fork: make it in the child, or start children by 'spawn' or 'forkserver'"
        )


class _Float32(TorchFunctionMode):
    """A mode in which results are float32 unless float64 is requested or among the arguments.

    `torch.set_default_dtype` applies to the whole process. Changing it temporarily would affect
    the caller's other threads.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func in _MAKERS and named.get("dtype") is None and not _asked(args):
            named["dtype"] = torch.float32
        found = func(*args, **named)
        if func in _ASKED or _asked((*args, *named.values())):
            return found
        if isinstance(found, Tensor):
            return _narrowed(found)
        if type(found) in (tuple, list):
            return type(found)(_narrowed(one) for one in found)
        return found


# Functions with floating results by default.
_MAKERS = frozenset(
    (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace)
)
# Functions whose result has the requested type.
_ASKED = frozenset((Tensor.double, torch.from_numpy, Tensor.numpy, Tensor.type))


def _asked(values: Sequence[Any]) -> bool:
    """Whether float64 is among the arguments of a call: as a dtype, a tensor or an array."""
    return any(
        value is torch.float64
        or getattr(value, "dtype", None) in (torch.float64, "float64")
        or (isinstance(value, list | tuple) and _asked(value))
        for value in values
    )


def _narrowed(found: Any) -> Any:
    if isinstance(found, Tensor) and found.dtype == torch.float64:
        return found.to(torch.float32)
    return found
