"""Compression of weights files: half precision or 8-bit integers, widened when loaded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STORAGES = ("half", "int8")
SCALE = ".scale"
_WORTH = 4096  # elements; smaller tensors save little and lose precision


def narrow(tensors: Mapping[str, Tensor], storage: str) -> dict[str, Tensor]:
    """Convert a network's state to the form of a file.

    storage: "half" makes floating tensors float16. "int8" makes convolutions and matrices of
        more than a few thousand elements int8. A second tensor `<name>.scale` has a float32
        factor for each output channel, so that its largest weight is ±127. Other tensors are as
        for "half".
    Integer tensors do not change.
    """
    narrowed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            narrowed[name] = tensor
        elif storage == "int8" and tensor.dim() > 1 and tensor.numel() >= _WORTH:
            scale = (tensor.flatten(1).abs().amax(1) / 127).clamp(min=1e-30)
            shape = (-1, *[1] * (tensor.dim() - 1))
            steps = (tensor / scale.view(shape)).round().clamp(-127, 127)
            narrowed[name], narrowed[name + SCALE] = steps.to(torch.int8), scale
        else:
            narrowed[name] = tensor.half()
    return narrowed


def widen(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a file's tensors to the form of a network: floating ones to float32."""
    widened: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name + SCALE)
        if scale is not None:
            shape = (-1, *[1] * (tensor.dim() - 1))
            widened[name] = tensor.to(torch.float32) * scale.view(shape)
        elif not name.endswith(SCALE):
            widened[name] = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
    return widened
