"""Where to compute."""

from __future__ import annotations

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


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device; on a CPU the tensor itself.

    A GPU fetches it by itself, by way of pinned memory, while the CPU goes on.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.contiguous().pin_memory().to(device, non_blocking=True)
