"""Convolutions made ready for inference: norms folded in, weights packed, rectifiers fused.

On a CPU a call of oneDNN's convolution costs time before it computes anything. So where
there is little to compute, patches are gathered and multiplied with the weights as matrices;
where there is much, oneDNN is called as torch.compile would: weights packed, rectifier fused.
Maps are (B, C, H, W) channels-last throughout; their rows are (B · H · W, C).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Patches of up to this many numbers are gathered and multiplied; of more, the gathering costs more
# than a call of oneDNN.
MOST_GATHERED = 180_000
# Pointwise convolutions of more pixels are left to oneDNN, which rectifies while it writes.
_MOST_MULTIPLIED = 16_000


class DirectConvolution:
    """A convolution and the rectifier after it, as one call.

    weight (N, C / groups, k, k), bias (N,): see `folded`.
    padding: on each side; None for half the kernel.
    leak: the rectifier's slope below zero, 0 for a plain one; None for no rectifier.
    most: what a plain rectifier gives at most; None for no bound.
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
        most: float | None = None,
    ) -> None:
        self._most = most
        self._kernel, self._stride, self._groups = weight.shape[2], stride, groups
        self._padding = self._kernel // 2 if padding is None else padding
        self._bias, self._leak = bias, leak
        self._weight = self._pack(weight)

    def _pack(self, weight: Tensor) -> Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last)
        self._fused = weight.device.type == "cpu" and has_fused_convolutions()
        # Packed for one size, weights of other widths may be repacked at every call on another
        # one, which is far slower than to pack them at every call (48: 7 ms instead of 0.1).
        if not self._fused or len(weight) & (len(weight) - 1):
            return weight
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, [self._padding] * 2, [self._stride] * 2, [1, 1], self._groups
        )
        return packed

    def __getstate__(self) -> dict[str, Any]:
        """Packed weights belong to a process."""
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
            return rectify_(maps, self._leak, self._most)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            maps, self._weight, self._bias, *places, *self._after(), ""
        )
        return found

    def _after(self) -> tuple[str, list[float]]:
        """What oneDNN is to do with what it has computed, and the numbers for it."""
        if self._leak is None:
            return "none", []
        if self._leak:
            return "leaky_relu", [self._leak]
        return ("relu", []) if self._most is None else ("hardtanh", [0.0, self._most])


class Convolution(DirectConvolution):
    """The same, computed in the way that suits the size of the maps.

    Neither groups nor another padding than half the kernel.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: int = 1,
        leak: float | None = 0.0,
        most: float | None = None,
    ) -> None:
        super().__init__(weight, bias, stride=stride, leak=leak, most=most)
        self._matrix = as_matrix(weight)
        self._may_multiply = weight.device.type == "cpu"

    def __call__(self, maps: Tensor) -> Tensor:
        batch, channels, height, width = maps.shape
        size = -(-height // self._stride), -(-width // self._stride)
        pixels = batch * size[0] * size[1]
        pointwise = self._kernel == self._stride == 1
        small = (
            pixels <= _MOST_MULTIPLIED
            if pointwise
            else pixels * self._kernel**2 * channels <= MOST_GATHERED
        )
        if not (small and self._may_multiply):
            return super().__call__(maps)
        patches = rows_of(maps)
        if not pointwise:
            index = patch_index(batch, height, width, self._kernel, self._stride)
            patches = with_zeros(patches).index_select(0, index).view(pixels, -1)
        rows = rectify_(torch.addmm(self._bias, patches, self._matrix), self._leak, self._most)
        return rows.view(batch, *size, -1).permute(0, 3, 1, 2)


@cache
def keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones.

    It gives back to the system what is larger than anything freed before, and every page of new
    memory is a fault: for the maps of a 640 × 480 photograph some 2,000 of them.
    One block of 31 MB, allocated and freed without being touched, has it keep up to 62 MB in each
    of its arenas, for the whole process (mallopt(3), M_MMAP_THRESHOLD). Where its environment
    variables say otherwise, or with other allocators, this changes nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def has_fused_convolutions() -> bool:
    """Whether oneDNN's convolutions can be called with what follows them fused.

    They are what torch.compile emits, but private to PyTorch, so a version may lack them.
    """
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def rectify_(maps: Tensor, leak: float | None, most: float | None = None) -> Tensor:
    """Rectified in place, with a slope below zero; None leaves it as it is.

    most: the upper bound of a plain rectifier.
    """
    if leak is None:
        return maps
    if most is not None:
        return maps.clamp_(0, most)
    return F.leaky_relu_(maps, leak) if leak else maps.relu_()


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B · H · W, C), without a copy where it is channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def with_zeros(*rows: Tensor) -> Tensor:
    """(·, C) each → (1 + N, C): a row of zeros, which stands for what lies outside, then all."""
    return torch.cat((rows[0].new_zeros(1, rows[0].shape[1]), *rows))


def as_matrix(weight: Tensor, taps: tuple[list[int], list[int]] | None = None) -> Tensor:
    """Weight (N, C, k, k) → (k · k · C, N), its rows in the order of `patch_index`.

    taps: rows and columns of the kernel to take; None for all.
    """
    count, channels, *kernel = weight.shape
    # Transposed as a plain matrix first: in one step with the rest it takes twice as long.
    matrix = weight.reshape(count, -1).t().contiguous().view(channels, *kernel, count)
    if taps is not None and taps != (list(range(kernel[0])), list(range(kernel[1]))):
        matrix = matrix[:, taps[0]][:, :, taps[1]]
    return matrix.permute(1, 2, 0, 3).reshape(-1, count)


def used_taps(size: int, kernel: int, stride: int) -> list[int]:
    """The places of a kernel that ever meet one of `size` pixels rather than the zeros outside."""
    reach = range(-(kernel // 2), size, stride)[: -(-size // stride)]
    return [tap for tap in range(kernel) if any(0 <= start + tap < size for start in reach)]


@lru_cache(maxsize=256)
def patch_index(  # noqa: PLR0913, PLR0917 - the numbers that describe a convolution
    images: int, height: int, width: int, kernel: int, stride: int, trim: bool = False
) -> Tensor:
    """Which rows make up the patches of a convolution padded by half its kernel.

    Row 0 stands for the zeros outside; row 1 + (i · height + y) · width + x is pixel (y, x) of
    image i. trim: leave out the taps that only ever meet zeros, see `used_taps`.
    Returns (images · h · w · taps,) int32: image after image, patch after patch, row-wise; within a
    patch the kernel's taps row-wise. Shared between calls: do not write to it.
    """
    every = list(range(kernel))
    rows = used_taps(height, kernel, stride) if trim else every
    columns = used_taps(width, kernel, stride) if trim else every
    pad = kernel // 2
    y = (np.arange(0, height, stride)[:, None] + np.array(rows) - pad)[:, None, :, None]
    x = (np.arange(0, width, stride)[:, None] + np.array(columns) - pad)[None, :, None, :]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)  # (h, w, taps down, taps across)
    first = 1 + height * width * np.arange(images)[:, None, None, None, None]
    index = np.where(inside, first + y * width + x, 0).astype(np.int32)
    # Kept for later calls, so it must be an ordinary tensor whatever mode this one runs in.
    with torch.inference_mode(False):
        return torch.from_numpy(index.reshape(-1))
