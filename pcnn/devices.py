"""Choice of the device, its instruction sets, and uploads to it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

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
