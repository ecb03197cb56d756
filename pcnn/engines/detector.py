"""RetinaFace prepared for inference: the same answers in less time.

Norms are folded into the convolutions, and rectifiers are fused with them. The first convolution
includes the normalisation of the image, so it takes plain pixels. The three heads of a level are
one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.engines.convolutions import (
    FusedConvolution,
    keep_freed_memory,
    rectify_,
    rows_of,
)
from pcnn.engines.cuda_graphs import with_cuda_graphs
from pcnn.engines.folding import fold_norm
from pcnn.engines.layered_networks import CompiledDetector
from pcnn.engines.layers import can_run
from pcnn.networks.retinaface import (
    ANCHORS_PER_CELL,
    Bottleneck,
    Context,
    MobileNet,
    ResNet50,
    RetinaFace,
    rectifier_leak,
)

# Numbers of photographs that have CUDA graphs. With more photographs the GPU's own work takes
# much longer than the launches.
_SIZES = (1, 2)


class PreparedRetinaFace:
    """A RetinaFace ready for inference on its device. Its weights are copied.

    channels: "rgb" or "bgr", the channel order of its training.
    mean, std: of its training images in that order, for values of 0…255.
    dtype: of the arithmetic between the first convolution and the heads; both are in float32.
        Compiled code computes depthwise and 3 × 3 convolutions in float32, too, see
        `layered_networks.CompiledDetector`.
    Threads may share it.
    """

    @torch.no_grad()
    def __init__(
        self,
        network: RetinaFace,
        *,
        channels: str,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        keep_freed_memory()
        parts = _Parts(network, channels, mean, std, dtype)
        self._kernel, self._colour = parts.kernel, parts.colour
        self._compute = {True: parts.predict, False: parts.predict_large}
        device = parts.colour.device
        self._recorded = {
            fine: with_cuda_graphs(compute, device, _SIZES)
            for fine, compute in self._compute.items()
        }

    def canvas(self, images: Sequence[Tensor], height: int, width: int) -> Tensor:
        """The network's input: each image in the upper left of height × width pixels.

        images: (h, w, 3) each, uint8 or float32, RGB, 0…255, on the network's device.
        height, width: multiples of 32. Returns (B, height + ·, width + ·, 3) float32.
        """
        edge = self._kernel // 2  # the canvas includes the padding of the first convolution
        shape = len(images), height + self._kernel - 2, width + self._kernel - 2, 3
        canvas = self._colour.new_empty(shape)
        for own, image in zip(canvas, images, strict=True):
            bottom, right = edge + image.shape[0], edge + image.shape[1]
            own[edge:bottom, edge:right] = image
            for outside in (own[:edge], own[bottom:], own[:, :edge], own[:, right:]):
                outside[:] = self._colour
        return canvas

    def __call__(self, canvas: Tensor, *, fine: bool = True) -> Tensor:
        """Predictions for every anchor.

        canvas: see `canvas`. fine: False leaves out the anchors of the finest level.
        Returns (B, N, 15): the logit of a face, box offsets, landmark offsets. The anchors have
        the order of `anchors.anchor_grid`.
        """
        answers = self._recorded if len(canvas) <= _SIZES[-1] else self._compute
        return answers[fine]([canvas.permute(0, 3, 1, 2)])[0]


class _Parts:
    """The network's layers. kernel: size of the first one; colour: fill around an image."""

    def __init__(
        self,
        network: RetinaFace,
        channels: str,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
    ) -> None:
        body = network.body
        leak = 0.0
        if isinstance(body, MobileNet):
            first = list(body.stage1[0].children())
            (weight, bias), leak = _fold_layers(first, torch.float32), rectifier_leak(first[2])
        else:
            weight, bias = fold_norm(body.conv1, body.bn1)  # type: ignore[arg-type]
        colour, deviation = weight.new_tensor(mean), weight.new_tensor(std)
        weight = weight / deviation[:, None, None]
        bias = bias - (weight * colour[:, None, None]).sum((1, 2, 3))
        if channels == "bgr":
            weight, colour = weight.flip(1), colour.flip(0)
        self.kernel, self.colour = weight.shape[2], colour
        levels = zip(network.ClassHead, network.BboxHead, network.LandmarkHead, strict=True)
        heads = [merge_heads([head.conv1x1 for head in level]) for level in levels]  # type: ignore[misc]
        self._levels: CompiledDetector | _Levels
        if isinstance(body, MobileNet) and can_run(weight, dtype):
            self._levels = CompiledDetector(network, (weight, bias), heads, dtype)
        else:
            stem = FusedConvolution(weight, bias, stride=2, padding=0, leak=leak)
            self._levels = _Levels(network, stem, heads, dtype)

    def predict(self, canvases: Sequence[Tensor]) -> list[Tensor]:
        """The predictions for the only canvas (B, 3, ·, ·), channels-last."""
        return [join_levels(self._levels(canvases[0], fine=True))]

    def predict_large(self, canvases: Sequence[Tensor]) -> list[Tensor]:
        """As predict, without the anchors of the finest level."""
        return [join_levels(self._levels(canvases[0], fine=False))]


class _Levels:
    """As CompiledDetector, on any device and for any body."""

    def __init__(
        self,
        network: RetinaFace,
        stem: FusedConvolution,
        heads: Sequence[tuple[Tensor, Tensor]],
        dtype: torch.dtype,
    ) -> None:
        body, pyramid = network.body, network.fpn
        self._stem, self._heads, self._dtype = stem, heads, dtype
        self._body: _MobileNet | _ResNet50
        if isinstance(body, MobileNet):
            self._body = _MobileNet(body, dtype)
        else:
            self._body = _ResNet50(body, dtype)  # type: ignore[arg-type]
        outputs = pyramid.output1, pyramid.output2, pyramid.output3
        self._outputs = [_sequence(output, dtype) for output in outputs]
        self._merges = [_sequence(own, dtype) for own in (pyramid.merge1, pyramid.merge2)]
        contexts = network.ssh1, network.ssh2, network.ssh3
        self._contexts = [_Context(own, dtype) for own in contexts]

    def __call__(self, canvas: Tensor, *, fine: bool) -> list[Tensor]:
        maps = self._body(self._stem(canvas).to(self._dtype))  # strides 8, 16, 32
        coarse = self._outputs[2](maps[2])
        middle = self._merges[1](_add_enlarged(self._outputs[1](maps[1]), coarse))
        levels = [middle, coarse]
        if fine:
            finest = _add_enlarged(self._outputs[0](maps[0]), middle)
            levels.insert(0, self._merges[0](finest))
        found: list[Tensor] = []
        for level, context, (bias, matrix) in zip(
            levels, self._contexts[-len(levels) :], self._heads[-len(levels) :], strict=True
        ):
            rows = torch.addmm(bias, rows_of(context(level)).to(bias.dtype), matrix)
            found.append(rows.view(len(canvas), *level.shape[2:], -1))
        return found


class _MobileNet:
    """The body after its first convolution."""

    def __init__(self, body: MobileNet, dtype: torch.dtype) -> None:
        blocks = list(body.stage1)[1:]
        stages = blocks, list(body.stage2), list(body.stage3)
        self._stages = [
            [_separable(list(block.children()), dtype) for block in stage] for stage in stages
        ]

    def __call__(self, maps: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for stage in self._stages:
            for depthwise, pointwise in stage:
                maps = pointwise(depthwise(maps))
            found.append(maps)
        return found


class _ResNet50:
    """The body after its first convolution."""

    def __init__(self, body: ResNet50, dtype: torch.dtype) -> None:
        stages = body.layer1, body.layer2, body.layer3, body.layer4
        self._stages = [[_Bottleneck(block, dtype) for block in stage] for stage in stages]  # type: ignore[arg-type]

    def __call__(self, maps: Tensor) -> list[Tensor]:
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)
        found: list[Tensor] = []
        for stage in self._stages:
            for block in stage:
                maps = block(maps)
            found.append(maps)
        return found[1:]


class _Bottleneck:
    def __init__(self, block: Bottleneck, dtype: torch.dtype) -> None:
        stride = block.conv2.stride[0]
        self._first = FusedConvolution(*fold_norm(block.conv1, block.bn1, dtype))
        self._second = FusedConvolution(*fold_norm(block.conv2, block.bn2, dtype), stride=stride)
        self._third = FusedConvolution(*fold_norm(block.conv3, block.bn3, dtype), leak=None)
        self._shortcut: FusedConvolution | None = None
        if block.downsample is not None:
            short = _fold_layers(list(block.downsample), dtype)
            self._shortcut = FusedConvolution(*short, stride=stride, leak=None)

    def __call__(self, maps: Tensor) -> Tensor:
        shortcut = maps if self._shortcut is None else self._shortcut(maps)
        return self._third(self._second(self._first(maps))).add_(shortcut).relu_()


class _Context:
    """SSH's context module. Convolutions of the same maps are merged into one."""

    def __init__(self, context: Context, dtype: torch.dtype) -> None:
        self._first = _Pair(context.conv3X3, context.conv5X5_1, dtype)
        self._second = _Pair(context.conv5X5_2, context.conv7X7_2, dtype)
        self._third = _sequence(context.conv7x7_3, dtype, rectified=True)

    def __call__(self, level: Tensor) -> Tensor:
        near, shared = self._first(level)
        middle, shared = self._second(shared)
        return torch.cat((near, middle, self._third(shared)), 1)


class _Pair:
    """Two convolutions of the same maps: one is final, the other is convolved again."""

    def __init__(self, final: nn.Sequential, shared: nn.Sequential, dtype: torch.dtype) -> None:
        parts = [_fold_layers(list(layers), dtype) for layers in (final, shared)]
        weight, bias = (torch.cat(both) for both in zip(*parts, strict=True))
        self._widths = [len(bias) for _, bias in parts]
        # Both are rectified; the shared one may have a leak.
        self._leak = rectifier_leak(shared[2])
        self._both = FusedConvolution(weight, bias, leak=None if self._leak else 0.0)

    def __call__(self, maps: Tensor) -> Sequence[Tensor]:
        final, shared = self._both(maps).split(self._widths, 1)
        if self._leak:
            return rectify_(final, 0.0), rectify_(shared, self._leak)
        return final, shared


def _separable(
    layers: list[nn.Module], dtype: torch.dtype
) -> tuple[FusedConvolution, FusedConvolution]:
    """The depthwise and the pointwise half of MobileNet's block, three layers each."""
    depthwise = cast("nn.Conv2d", layers[0])
    first = FusedConvolution(
        *_fold_layers(layers, dtype),
        stride=depthwise.stride[0],
        groups=depthwise.groups,
        leak=rectifier_leak(layers[2]),
    )
    return first, _sequence(layers[3:], dtype)


def _sequence(
    layers: nn.Sequential | list[nn.Module], dtype: torch.dtype, *, rectified: bool = False
) -> FusedConvolution:
    """A convolution with its norm and optional rectifier. rectified: always add a rectifier."""
    layers = list(layers)
    leak = rectifier_leak(layers[2]) if len(layers) > 2 else 0.0 if rectified else None
    return FusedConvolution(*_fold_layers(layers, dtype), leak=leak)


def _fold_layers(layers: list[nn.Module], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight and bias of the first layer, a convolution, with the second layer, a norm, folded."""
    return fold_norm(cast("nn.Conv2d", layers[0]), layers[1], dtype)


def join_levels(levels: Sequence[Tensor]) -> Tensor:
    """Predictions (B, h, w, 30) of each level → one row for each anchor, (B, N, 15).

    A row has the logit of a face, its box and its landmarks. The order is that of
    `anchors.anchor_grid`.
    """
    joined = []
    for level in levels:
        batch, height, width, values = level.shape  # as len() it would be constant in graphs
        anchors = height * width * ANCHORS_PER_CELL
        joined.append(level.reshape(batch, anchors, values // ANCHORS_PER_CELL))
    return torch.cat(joined, 1)


def merge_heads(heads: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Bias (30,) and matrix (C, 30) of a level's heads, ordered by anchor, then by value."""
    parts: list[Tensor] = []
    for head in heads:
        weight, bias = head.weight.detach().flatten(1), cast("Tensor", head.bias).detach()
        parts.append(torch.cat((weight, bias[:, None]), 1).unflatten(0, (ANCHORS_PER_CELL, -1)))
    classes, boxes, landmarks = parts  # each (anchors, values, C + 1)
    face = classes[:, 1:] - classes[:, :1]
    rows = torch.cat((face, boxes, landmarks), 1).flatten(0, 1)
    return rows[:, -1].contiguous(), rows[:, :-1].t().contiguous()


def _add_enlarged(fine: Tensor, coarse: Tensor) -> Tensor:
    return fine.add_(F.interpolate(coarse, size=fine.shape[-2:], mode="nearest"))
