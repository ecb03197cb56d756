"""Convolutions prepared for inference: folded norms, packed weights, fused rectifiers.

On a CPU each call of oneDNN's convolution has a fixed cost. So small maps are gathered into
patches and multiplied by the weights as matrices. Large maps go to oneDNN, called as
torch.compile calls it: with packed weights and a fused rectifier.
All maps are (B, C, H, W) channels-last; their rows are (B · H · W, C).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Patches of at most this many numbers are gathered and multiplied. For larger ones, gathering
# costs more than a call of oneDNN.
MOST_GATHERED = 180_000
# Pointwise convolutions of more pixels go to oneDNN, which rectifies while it writes.
_MOST_MULTIPLIED = 16_000


class DirectConvolution:
    """A convolution with its rectifier, as one call.

    weight (N, C / groups, k, k), bias (N,): see `fold_norm`.
    padding: pixels on each side; None means half the kernel.
    leak: the rectifier's slope below zero, 0 for a plain rectifier; None for no rectifier.
    most: the upper bound of a plain rectifier; None for no bound.
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
            return rectify_(maps, self._leak, self._most)
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
        return ("relu", []) if self._most is None else ("hardtanh", [0.0, self._most])


class Convolution(DirectConvolution):
    """A DirectConvolution that also multiplies matrices if the maps are small.

    It has no groups, and its padding is half the kernel.
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


def rectify_(maps: Tensor, leak: float | None, most: float | None = None) -> Tensor:
    """Rectify maps in place.

    leak: the slope below zero; None changes nothing. most: the upper bound of a plain rectifier.
    """
    if leak is None:
        return maps
    if most is not None:
        return maps.clamp_(0, most)
    return F.leaky_relu_(maps, leak) if leak else maps.relu_()


def rows_of(maps: Tensor) -> Tensor:
    """(B, C, H, W) → (B · H · W, C), without a copy if the maps are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def with_zeros(*rows: Tensor) -> Tensor:
    """(·, C) each → (1 + N, C): a row of zeros for pixels outside the map, then all rows."""
    return torch.cat((rows[0].new_zeros(1, rows[0].shape[1]), *rows))


def as_matrix(weight: Tensor, taps: tuple[list[int], list[int]] | None = None) -> Tensor:
    """Weight (N, C, k, k) → (k · k · C, N), its rows in the order of `patch_index`.

    taps: rows and columns of the kernel to take; None for all.
    """
    count, channels, *kernel = weight.shape
    # Transposing as a plain matrix first takes half the time of a single permutation.
    matrix = weight.reshape(count, -1).t().contiguous().view(channels, *kernel, count)
    if taps is not None and taps != (list(range(kernel[0])), list(range(kernel[1]))):
        matrix = matrix[:, taps[0]][:, :, taps[1]]
    return matrix.permute(1, 2, 0, 3).reshape(-1, count)


def used_taps(size: int, kernel: int, stride: int) -> list[int]:
    """The kernel taps that meet at least one of `size` pixels; others meet only padding."""
    reach = range(-(kernel // 2), size, stride)[: -(-size // stride)]
    return [tap for tap in range(kernel) if any(0 <= start + tap < size for start in reach)]


@lru_cache(maxsize=256)
def patch_index(  # noqa: PLR0913, PLR0917 - the numbers that describe a convolution
    images: int, height: int, width: int, kernel: int, stride: int, trim: bool = False
) -> Tensor:
    """Row indices of the patches of a convolution padded by half its kernel.

    Row 0 holds the zeros outside the map. Row 1 + (i · height + y) · width + x is pixel (y, x) of
    image i. trim: leave out the taps that meet only zeros, see `used_taps`.
    Returns (images · h · w · taps,) int32, ordered by image, then by patch and tap, row by row.
    Calls share the result: do not write to it.
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
    # Later calls use this tensor too, so it must not be an inference tensor.
    with torch.inference_mode(False):
        return torch.from_numpy(index.reshape(-1))
