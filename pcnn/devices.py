"""Where to compute."""

from __future__ import annotations

import torch
from torch import Tensor

from pcnn.errors import InputError


def choose_device(device: str | torch.device, name: str) -> torch.device:
    """The device asked for; "auto" is CUDA where there is one, else the CPU.

    name: what messages call it. Raises InputError: it cannot be used here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name} {str(device)!r} cannot be used ({error})") from error
    return chosen


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A CPU's tensor on a device; on a CPU the tensor itself.

    A GPU fetches it by itself, by way of pinned memory, while the CPU goes on.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
