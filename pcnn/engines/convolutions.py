"""Convolutions with folded norms and fused rectifiers, where no compiled code runs the layers.

On a CPU oneDNN computes them, called as torch.compile calls it: with packed weights.
All maps are (B, C, H, W) channels-last; their rows are (B · H · W, C).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class FusedConvolution:
    """A convolution with its rectifier, as one call.

    weight (N, C / groups, k, k), bias (N,): see `fold_norm`.
    padding: pixels on each side; None means half the kernel.
    leak: the rectifier's slope below zero, 0 for a plain rectifier; None for no rectifier.
    """

    def __init__(  # noqa: PLR0913
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: int | None = None,
        leak: float | None = 0.0,
    ) -> None:
        self._kernel, self._stride, self._groups = weight.shape[2], stride, groups
        self._padding = self._kernel // 2 if padding is None else padding
        self._bias, self._leak = bias, leak
        self._weight = self._pack(weight)

    def _pack(self, weight: Tensor) -> Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        self._fused = weight.device.type == "cpu" and has_fused_convolutions()
        # Packed weights fit one input size. If their width is no power of two, oneDNN may pack
        # them again at each call on another size. That is much slower than plain weights
        # (width 48: 7 ms instead of 0.1).
        if not self._fused or len(weight) & (len(weight) - 1):
            return weight
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [self._padding] * 2, [self._stride] * 2, [1, 1], self._groups
        )
        return packed

    def __getstate__(self) -> dict[str, Any]:
        """The state with unpacked weights, because packed ones belong to a process."""
        return {**vars(self), "_weight": self._weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._weight = self._pack(self._weight)

    def __call__(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, N, h, w); B is at least 1."""
        places = [self._padding] * 2, [self._stride] * 2, [1, 1], self._groups
        if not self._fused:
            padding, stride, dilation, groups = places
            maps = F.conv2d(maps, self._weight, self._bias, stride, padding, dilation, groups)
            return rectify_(maps, self._leak)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, self._weight, self._bias, *places, *self._after(), ""
        )
        return found

    def _after(self) -> tuple[str, list[float]]:
        """The operation that oneDNN applies to its results, and its parameters."""
        if self._leak is None:
            return "none", []
        if self._leak:
            return "leaky_relu", [self._leak]
        return "relu", []


@cache
def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed tensors for the next ones.

    glibc returns a freed block to the system if it is larger than all blocks freed before. New
    memory then costs page faults: about 2,000 for the maps of a 640 × 480 photograph.
    This function allocates and frees one block of 31 MB. After that glibc keeps up to 62 MB in
    each of its arenas, for the whole process (mallopt(3), M_MMAP_THRESHOLD). It has no effect
    with other allocators, or if glibc's environment variables set the threshold.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def has_fused_convolutions() -> bool:
    """Whether PyTorch has oneDNN's convolutions with fused rectifiers.

    torch.compile uses them. They are private to PyTorch, so a version may lack them.
    """
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def rectify_(maps: Tensor, leak: float | None) -> Tensor:
    """Rectify maps in place.

    leak: the slope below zero; None changes nothing.
    """
    if leak is None:
        return maps
    return F.leaky_relu_(maps, leak) if leak else maps.relu_()


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B · H · W, C), without a copy if the maps are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
