"""Trunks as lists of calls on fixed buffers, quicker than modules for few faces.

The *rows* of maps are (1 + trunks · images · height · width, C). The first row is zeros, for
pixels outside the maps. Then come the maps of several trunks whose views share a size, ordered by
trunk, image and pixel. A convolution gathers rows into patches and multiplies them by the weights
of each trunk, as one batched product. A step is a call with all its arguments.

An example: one trunk, one image of 2 × 2 pixels and one channel, a 3 × 3 convolution to N channels.

    maps     1 2     rows  0 1 2 3 4     (row 0 is outside; then the pixels in order)
             3 4

    patches of the four pixels, each nine rows by index (`patch_index`):
        pixel 1:  0 0 0  0 1 2  0 3 4
        pixel 2:  0 0 0  1 2 0  3 4 0
        pixel 3:  0 1 2  0 3 4  0 0 0
        pixel 4:  1 2 0  3 4 0  0 0 0

    product: patches (4, 9 · C) × weights (9 · C, N) + bias = the rows (4, N) of the next maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.engines.convolutions import (
    MOST_GATHERED,
    DirectConvolution,
    as_matrix,
    patch_index,
    rows_of,
    used_taps,
)
from pcnn.engines.folding import fold_norm
from pcnn.networks.trunk import BasicBlock, Trunk

Size: TypeAlias = "tuple[int, int]"  # height, width
Step: TypeAlias = Callable[[], object]
_Folded: TypeAlias = "tuple[Tensor, Tensor]"  # weight (N, C, k, k), bias (N,)

# Products read the weights of many channels in contiguous strips of columns. That is a quarter
# quicker for the few pixels of stage 4.
_STRIP = 128


def empty_rows(count: int, channels: int, dtype: torch.dtype) -> Tensor:
    """(1 + count, channels): a row of zeros and uninitialised rows."""
    rows = torch.empty(1 + count, channels, dtype=dtype)
    rows[0].zero_()
    return rows


class Scratch:
    """Memory for patches. Convolutions use it one after another."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._memory = torch.empty(0, dtype=dtype)

    def take(self, count: int) -> Tensor:
        """The first `count` numbers of the memory, (count,)."""
        if count > len(self._memory):
            self._memory = self._memory.new_empty(count)
        return self._memory[:count]


class Linear:
    """A linear layer.

    order: the order of the input features, if it differs from the layer's. dtype: of the
    arithmetic; None for that of the weights.
    """

    def __init__(
        self, linear: nn.Module, order: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> None:
        weight, bias = linear.weight.detach().t(), linear.bias.detach()  # type: ignore[operator]
        weight = (weight if order is None else weight[order]).contiguous()  # (in, out)
        self.weight = weight.to(dtype or weight.dtype)
        self.bias = bias.to(dtype or bias.dtype, copy=True)

    def __call__(self, features: Tensor) -> Tensor:
        """(B, in) → (B, out)."""
        return torch.addmm(self.bias, features, self.weight)

    def step(self, features: Tensor, out: Tensor) -> Step:
        """The step that applies the layer from one buffer to another."""
        return partial(torch.addmm, self.bias, features, self.weight, out=out)


class Trunks:
    """Trunks whose views share a size, computed together in one type of numbers.

    out: the size of their last maps.
    """

    def __init__(self, trunks: Sequence[Trunk], size: Size, dtype: torch.dtype) -> None:
        stems = [fold_norm(trunk.conv1, trunk.bn1, dtype) for trunk in trunks]
        self._dtype = dtype
        self._count, self._size, self._channels = len(trunks), size, stems[0][0].shape[1]
        self._stem = _Product(stems, size, 2)
        self._direct = [DirectConvolution(*stem, stride=2, leak=None) for stem in stems]
        self._pooled: Size = (-(-self._stem.out[0] // 2), -(-self._stem.out[1] // 2))
        self.out: Size = self._pooled
        self._stages: list[Stage] = []
        for name, direct in (("layer1", True), ("layer2", True), ("layer3", False)):
            parts = [getattr(trunk, name) for trunk in trunks]
            stage = Stage(parts, self.out, dtype, direct=direct)
            self._stages.append(stage)
            self.out = stage.out

    def steps(self, images: int, scratch: Scratch) -> tuple[Tensor, Tensor, list[Step]]:
        """A buffer for the views, a buffer for the maps, and the steps between them.

        Views: (trunks · images · height · width, channels), in the order of rows. Maps: rows.
        """
        count = self._count * images
        size, pooled = self._size, self._pooled
        views = empty_rows(count * size[0] * size[1], self._channels, self._dtype)
        rows = empty_rows(count * pooled[0] * pooled[1], self._stem.width, self._dtype)
        if images * self._stem.numbers > MOST_GATHERED:
            maps = views[1:].view(self._count, images, *size, -1).permute(0, 1, 4, 2, 3)
            steps: list[Step] = [partial(_pool, list(maps), self._direct, rows[1:])]
        else:
            out = self._stem.out
            stem = empty_rows(count * out[0] * out[1], self._stem.width, self._dtype)
            patches, gather = self._stem.gather(views, images, scratch)
            maps = stem[1:].view(count, *out, -1).permute(0, 3, 1, 2)
            multiply = self._stem.multiply(patches, stem)
            steps = [gather, *multiply, partial(_pool, [maps], [], rows[1:])]
        for stage in self._stages:
            rows, some = stage.steps(rows, images, scratch)
            steps += some
        return views[1:], rows, steps


class Stage:
    """The same stage of several trunks, two blocks each. out, width: size and channels of its maps.

    dtype: of the arithmetic. direct: also hold oneDNN's form of the weights, for large maps and
    many faces.
    """

    def __init__(
        self,
        stages: Sequence[nn.Sequential],
        size: Size,
        dtype: torch.dtype,
        *,
        direct: bool = False,
    ) -> None:
        self._size = size
        self._blocks: list[_Block] = []
        self._direct: list[list[_DirectBlock]] = [[] for _ in stages] if direct else []
        for blocks in zip(*stages, strict=True):
            parts = [_Parts(block, dtype) for block in blocks]
            self._blocks.append(_Block(parts, self._blocks[-1].out if self._blocks else size))
            for own, part in zip(self._direct, parts, strict=False):
                own.append(_DirectBlock(part))
        self.out: Size = self._blocks[-1].out
        self.width: int = self._blocks[-1].width

    def steps(self, rows: Tensor, images: int, scratch: Scratch) -> tuple[Tensor, list[Step]]:
        """The rows of the stage's maps, and the steps that compute them from `rows`."""
        trunks = (len(rows) - 1) // (images * self._size[0] * self._size[1])
        count = trunks * images * self.out[0] * self.out[1]
        if self._direct and images * self._blocks[0].numbers > MOST_GATHERED:
            found = empty_rows(count, self.width, rows.dtype)
            maps = rows[1:].view(trunks, images, *self._size, -1).permute(0, 1, 4, 2, 3)
            return found, [partial(_run_blocks, list(maps), self._direct, found[1:])]
        hidden = empty_rows(count, self.width, rows.dtype)
        steps: list[Step] = []
        for block in self._blocks:
            found = empty_rows(count, self.width, rows.dtype)
            steps += block.steps(rows, hidden, found, images, scratch)
            rows = found
        return rows, steps


class _Parts:
    """A residual block's convolutions with folded norms."""

    def __init__(self, block: BasicBlock, dtype: torch.dtype) -> None:
        self.stride = block.conv1.stride[0]
        self.first = fold_norm(block.conv1, block.bn1, dtype)
        self.second = fold_norm(block.conv2, block.bn2, dtype)
        self.shortcut: _Folded | None = None
        if block.downsample is not None:
            convolution, norm = block.downsample
            self.shortcut = fold_norm(cast("nn.Conv2d", convolution), norm, dtype)


class _Block:
    """The same residual block of several trunks, as batched products."""

    def __init__(self, blocks: Sequence[_Parts], size: Size) -> None:
        self._first = _Product([block.first for block in blocks], size, blocks[0].stride)
        self.out: Size = self._first.out
        self._second = _Product([block.second for block in blocks], self.out, 1)
        self.width, self.numbers = self._second.width, self._second.numbers
        self._bias = torch.stack([block.second[1][None] for block in blocks])
        self._shortcut: Tensor | None = None
        shortcuts = [block.shortcut for block in blocks if block.shortcut is not None]
        if shortcuts:
            self._shortcut = torch.stack([as_matrix(weight) for weight, _ in shortcuts])
            self._bias += torch.stack([bias[None] for _, bias in shortcuts])

    def steps(
        self, rows: Tensor, hidden: Tensor, found: Tensor, images: int, scratch: Scratch
    ) -> list[Step]:
        """The steps from `rows` to `found`; `hidden` holds the maps between both convolutions."""
        patches, gather = self._first.gather(rows, images, scratch)
        maps = found[1:].view(len(self._bias), -1, self.width)
        if self._shortcut is None:
            before = rows[1:].view(maps.shape)
            start: Step = partial(torch.add, before, self._bias, out=maps)
        else:
            # The shortcut's pointwise convolution reads the middle of each patch.
            channels = self._shortcut.shape[1]
            middle = patches.narrow(2, self._first.middle * channels, channels)
            start = partial(torch.baddbmm, self._bias, middle, self._shortcut, out=maps)
        steps = [gather, start, *self._first.multiply(patches, hidden), hidden.relu_]
        patches, gather = self._second.gather(hidden, images, scratch)
        return [*steps, gather, *self._second.multiply(patches, found, onto=True), found.relu_]


class _DirectBlock:
    """One residual block of oneDNN's convolutions."""

    def __init__(self, block: _Parts) -> None:
        self._first = DirectConvolution(*block.first, stride=block.stride)
        self._second = DirectConvolution(*block.second, leak=None)
        self._shortcut: DirectConvolution | None = None
        if block.shortcut is not None:
            self._shortcut = DirectConvolution(*block.shortcut, stride=block.stride, leak=None)

    def __call__(self, maps: Tensor) -> Tensor:
        shortcut = maps if self._shortcut is None else self._shortcut(maps)
        return self._second(self._first(maps)).add_(shortcut).relu_()


class _Product:
    """The same convolution of several trunks, each with its weights, as one batched product.

    Kernel taps that meet only zeros outside a small map are left out.
    out, width: size and channels of its maps. middle: index of the kernel's middle tap.
    numbers: count of numbers in the patches of one image, a measure of the cost of gathering.
    """

    def __init__(self, convolutions: Sequence[_Folded], size: Size, stride: int) -> None:
        kernel = convolutions[0][0].shape[2]
        down, across = used_taps(size[0], kernel, stride), used_taps(size[1], kernel, stride)
        self._weight = torch.stack([as_matrix(own, (down, across)) for own, _ in convolutions])
        self._bias = torch.stack([bias[None] for _, bias in convolutions])
        self._trunks, self._count, self.width = self._weight.shape
        self._strips = 1
        if self._trunks == 1 and self.width >= 2 * _STRIP and self.width % _STRIP == 0:
            self._strips = self.width // _STRIP
            strips = self._weight.view(self._count, self._strips, _STRIP)
            self._weight = strips.transpose(0, 1).contiguous()
            self._bias = self._bias.view(self._strips, 1, _STRIP)
        self._size, self._kernel, self._stride = size, kernel, stride
        self.middle = down.index(kernel // 2) * len(across) + across.index(kernel // 2)
        self.out: Size = (-(-size[0] // stride), -(-size[1] // stride))
        self.numbers = self.out[0] * self.out[1] * self._count

    def gather(self, rows: Tensor, images: int, scratch: Scratch) -> tuple[Tensor, Step]:
        """A buffer for patches (trunks, images · h · w, taps · C), and the step that fills it."""
        index = patch_index(self._trunks * images, *self._size, self._kernel, self._stride, True)
        patches = scratch.take(self._trunks * images * self.numbers)
        channels = rows.shape[1]
        # Single numbers are gathered faster from a plain vector.
        source, flat = (rows, patches.view(-1, channels)) if channels > 1 else (rows[:, 0], patches)
        step = partial(torch.index_select, source, 0, index, out=flat)
        return patches.view(self._trunks, -1, self._count), step

    def multiply(self, patches: Tensor, found: Tensor, *, onto: bool = False) -> list[Step]:
        """The steps from patches to the rows `found`. onto: add to them instead, without bias."""
        maps = found[1:].view(self._trunks, -1, self.width)
        if self._strips == 1:
            if onto:
                return [partial(maps.baddbmm_, patches, self._weight)]
            return [partial(torch.baddbmm, self._bias, patches, self._weight, out=maps)]
        pixels = maps.shape[1]
        strips = maps.new_empty(self._strips, pixels, _STRIP)
        parts = patches.expand(self._strips, pixels, self._count)
        columns = maps.view(pixels, self._strips, _STRIP).transpose(0, 1)
        product = partial(torch.bmm, parts, self._weight, out=strips)
        if onto:
            return [product, partial(columns.add_, strips)]
        return [product, partial(torch.add, strips, self._bias, out=columns)]


def _pool(maps: Sequence[Tensor], stems: Sequence[DirectConvolution], out: Tensor) -> None:
    """Write max-pooled and rectified maps as rows. Pooling first saves rectifications."""
    if stems:
        maps = [stem(one) for stem, one in zip(stems, maps, strict=True)]
    torch.cat([rows_of(F.max_pool2d(one, 3, 2, 1)) for one in maps], out=out)
    out.relu_()


def _run_blocks(
    maps: Sequence[Tensor], blocks: Sequence[Sequence[_DirectBlock]], out: Tensor
) -> None:
    """Write the results of each trunk's blocks as rows."""
    done: list[Tensor] = []
    for one, own in zip(maps, blocks, strict=True):
        for block in own:
            one = block(one)  # noqa: PLW2901 - the same map, a block further
        done.append(rows_of(one))
    torch.cat(done, out=out)
