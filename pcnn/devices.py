"""Where to compute."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pcnn.errors import InputError


def choose_device(device: str | torch.device, name: str) -> torch.device:
    """The device asked for; "auto" is CUDA where there is one, else the CPU.

    Of several GPUs the current one, unless a number is given: with its number, as other threads
    may have another current one.
    name: what messages call it. Raises InputError: it cannot be used here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name} {str(device)!r} cannot be used ({error})") from error
    return chosen


def instructions() -> frozenset[str]:
    """The processor's sets of instructions, as Linux names them; elsewhere none are known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    told = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(word for line in told for word in line.partition(":")[2].split())


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device; on a CPU the tensor itself.

    A GPU fetches it by itself, by way of pinned memory, while the CPU goes on.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)
