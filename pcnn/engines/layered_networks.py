"""Networks as layers that compiled code runs, see `layers`: trunks, stages, the detector.

All take modules in eval mode, float32 on a CPU, and leave them unchanged. dtype: of the products.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pcnn.engines.folding import fold_norm
from pcnn.engines.layers import Layers, Maps, can_run
from pcnn.networks.landmarks import LandmarkNet
from pcnn.networks.mobilenet import FINE_BLOCKS, MobileTrunk, SeparableBlock
from pcnn.networks.movements import Motion, MovementNet
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.retinaface import Context, MobileNet, RetinaFace, rectifier_leak
from pcnn.networks.trunk import BasicBlock, Trunk

_MOST = 6.0  # the upper bound of ReLU6


def prepare_movements(network: MovementNet) -> Callable[[Tensor], Motion]:
    """A function from normalised faces (B, 3, S, S) to their Motion; the same answers, quicker.

    network: in eval mode; not changed. Without compiled layers it is the network itself. Threads
    may share it.
    """
    if not can_run(next(network.parameters())):
        return network
    twin = copy.deepcopy(network)
    twin.trunk = CompiledReductions(network)  # type: ignore[assignment]
    twin.fine = twin.coarse = nn.Flatten()  # type: ignore[assignment]
    return twin


def prepare_landmarks(network: LandmarkNet) -> Callable[[Tensor], Tensor]:
    """A function from normalised faces (B, 1, S, S) to landmarks (B, 5, 2); the same, quicker.

    network, threads: see prepare_movements.
    """
    if not can_run(next(network.parameters())):
        return network
    twin = copy.deepcopy(network)
    twin.trunk = CompiledSequence(network.trunk)  # type: ignore[assignment]
    return twin


class CompiledTrunks:
    """Trunks that are run together, one for each view; see `has_layers`."""

    def __init__(self, trunks: Sequence[nn.Module], dtype: torch.dtype = torch.float32) -> None:
        self._layers = Layers(dtype)
        self._views: list[Maps] = []
        self._out: list[Maps] = []
        for trunk in trunks:
            view = self._layers.maps(cast("nn.Conv2d", trunk.conv1).in_channels)
            self._views.append(view)
            self._out.append(_add_trunk(self._layers, view, trunk)[-1])

    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The maps of each trunk; views: (B, C, height, width) each, one for each trunk."""
        return self._layers.run(list(zip(self._views, views, strict=True)), self._out)


class CompiledReductions(nn.Module):
    """A movement network's trunk, with the reductions of its maps."""

    def __init__(self, network: MovementNet) -> None:
        super().__init__()
        self._layers = Layers()
        self._view = self._layers.maps(network.trunk.conv1.in_channels)
        maps = _add_trunk(self._layers, self._view, network.trunk)
        self._out = [
            self._layers.convolution(own, fold_norm(part.convolution, part.bn), most=_MOST)
            for own, part in zip(maps, (network.fine, network.coarse), strict=True)
        ]

    def both(self, view: Tensor) -> tuple[Tensor, Tensor]:
        """As MobileTrunk.both, but reduced; only to be flattened."""
        fine, maps = self._layers.run([(self._view, view)], self._out)
        return fine, maps


class _Chain(nn.Module):
    """Layers from one input to one output."""

    _layers: Layers
    _source: Maps
    _out: Maps

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → the last layer's maps."""
        return self._layers.run([(self._source, maps)], [self._out])[0]


class CompiledStage(_Chain):
    """Blocks of a ResNet or MobileNet, see `has_layers`."""

    def __init__(self, blocks: nn.Sequential, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._layers = Layers(dtype)
        first = next(part for part in blocks.modules() if isinstance(part, nn.Conv2d))
        self._source = self._layers.maps(first.in_channels)
        self._out = _add_blocks(self._layers, self._source, blocks)


class CompiledSequence(_Chain):
    """Convolutions, each with its norm and a plain rectifier."""

    def __init__(self, trunk: nn.Sequential) -> None:
        super().__init__()
        layers = list(trunk)  # convolution, norm, rectifier, …
        self._layers = Layers()
        self._source = maps = self._layers.maps(cast("nn.Conv2d", layers[0]).in_channels)
        for convolution, norm in zip(layers[::3], layers[1::3], strict=True):
            own = cast("nn.Conv2d", convolution)
            stride, padding = own.stride[0], cast("int", own.padding[0])
            folded = fold_norm(own, norm)
            maps = self._layers.convolution(maps, folded, stride=stride, padding=padding)
        self._out = maps


class CompiledDetector:
    """A RetinaFace with MobileNet's body, from its input to the predictions of each level.

    stem: weight and bias of its first convolution, which has no padding. heads: of each level,
    see `detector.merge_heads`. dtype: of the products of 1 × 1 convolutions. The stem, depthwise
    and 3 × 3 convolutions (see `_takes_tiles`) and the heads are in float32 in any case.
    """

    def __init__(
        self,
        network: RetinaFace,
        stem: tuple[Tensor, Tensor],
        heads: Sequence[tuple[Tensor, Tensor]],
        dtype: torch.dtype,
    ) -> None:
        self._layers = layers = Layers(dtype)
        body, pyramid = cast("MobileNet", network.body), network.fpn
        self._canvas = layers.maps(stem[0].shape[1])
        first, *blocks = body.stage1
        leak = rectifier_leak(first[2])  # type: ignore[index]
        maps = layers.convolution(self._canvas, stem, stride=2, padding=0, leak=leak, exact=True)
        stages: list[Maps] = []
        for stage in (blocks, body.stage2, body.stage3):
            for block in stage:
                parts = list(block.children())  # three of the depthwise half, three of the other
                maps = _add_rectified(layers, _add_rectified(layers, maps, parts[:3]), parts[3:])
            stages.append(maps)
        coarse = _add_rectified(layers, stages[2], pyramid.output3)
        middle = _add_rectified(layers, stages[1], pyramid.output2)
        layers.add_enlarged(coarse, middle)
        middle = _add_rectified(layers, middle, pyramid.merge2)
        finest = _add_rectified(layers, stages[0], pyramid.output1)
        layers.add_enlarged(middle, finest)
        finest = _add_rectified(layers, finest, pyramid.merge1)
        contexts = network.ssh1, network.ssh2, network.ssh3
        levels = zip((finest, middle, coarse), contexts, heads, strict=True)
        self._out = [
            layers.convolution(
                _add_context(layers, level, context),
                (matrix.t()[:, :, None, None], bias),
                padding=0,
                leak=None,
                exact=True,
            )
            for level, context, (bias, matrix) in levels
        ]

    def __call__(self, canvas: Tensor, *, fine: bool) -> list[Tensor]:
        """(B, h, w, 30) for each level, of the canvas (B, 3, ·, ·), from the finest one.

        fine: False leaves out the finest level.
        """
        found = self._layers.run([(self._canvas, canvas)], self._out if fine else self._out[1:])
        return [level.permute(0, 2, 3, 1) for level in found]


def _add_trunk(layers: Layers, view: Maps, trunk: nn.Module) -> list[Maps]:
    """Add a trunk's layers; returns the maps of `MobileTrunk.both`, or those of `Trunk.forward`."""
    return _TRUNKS[type(trunk)](layers, view, trunk)


def _add_mobilenet(layers: Layers, view: Maps, trunk: MobileTrunk) -> list[Maps]:
    maps = layers.convolution(view, fold_norm(trunk.conv1, trunk.bn1), stride=2, most=_MOST)
    blocks = list(trunk.blocks)
    fine = _add_blocks(layers, maps, blocks[:FINE_BLOCKS])
    return [fine, _add_blocks(layers, fine, blocks[FINE_BLOCKS:])]


def _add_resnet(layers: Layers, view: Maps, trunk: Trunk) -> list[Maps]:
    stem = layers.convolution(view, fold_norm(trunk.conv1, trunk.bn1), stride=2, padding=3)
    maps = layers.max_pool(stem)
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3):
        maps = _add_blocks(layers, maps, stage)
    return [maps]


def _add_blocks(layers: Layers, maps: Maps, blocks: Iterable[nn.Module]) -> Maps:
    for block in blocks:
        maps = _BLOCKS[type(block)](layers, maps, block)
    return maps


def _add_separable(layers: Layers, maps: Maps, block: SeparableBlock) -> Maps:
    depthwise = fold_norm(block.depthwise, block.bn1)
    maps = layers.convolution(maps, depthwise, stride=block.stride, most=_MOST)
    return layers.convolution(maps, fold_norm(block.pointwise, block.bn2), most=_MOST)


def _add_residual(layers: Layers, maps: Maps, block: BasicBlock) -> Maps:
    stride = block.conv1.stride[0]
    shortcut = maps
    if block.downsample is not None:
        folded = fold_norm(cast("nn.Conv2d", block.downsample[0]), block.downsample[1])
        shortcut = layers.convolution(maps, folded, stride=stride, padding=0, leak=None)
    hidden = layers.convolution(
        *(maps, fold_norm(block.conv1, block.bn1)),
        stride=stride,
        padding=1,
        winograd=_takes_tiles(block.conv1, layers.dtype, of_detector=False),
    )
    return layers.convolution(
        *(hidden, fold_norm(block.conv2, block.bn2)),
        padding=1,
        onto=shortcut,
        winograd=_takes_tiles(block.conv2, layers.dtype, of_detector=False),
    )


# What is compiled, by its exact type: a subclass may compute something else.
_TRUNKS: Mapping[type[nn.Module], Callable[..., list[Maps]]] = {
    MobileTrunk: _add_mobilenet,
    Trunk: _add_resnet,
}
_BLOCKS: Mapping[type[nn.Module], Callable[..., Maps]] = {
    SeparableBlock: _add_separable,
    BasicBlock: _add_residual,
}


def has_layers(network: PCNN | FaceNet) -> bool:
    """Whether a network's trunks and the blocks of its stage 4 can be made of layers."""
    return all(type(trunk) in _TRUNKS for trunk in network.trunk_list) and all(
        type(block) in _BLOCKS for block in network.layer4.children()
    )


def _takes_tiles(convolution: nn.Conv2d, dtype: torch.dtype, *, of_detector: bool) -> bool:
    """Whether a convolution may be computed in Winograd's tiles; it is in float32 then.

    dtype: of the other products. Where it is bfloat16, only the detector takes tiles. A search of
    480 × 640 pixels takes 11.7 ms with tiles and 14.8 without; one face of pcnn-ferplus-only takes
    4.4 and 3.7 (AVX-512 BF16, one thread, commit 3caf295).
    """
    dense = convolution.kernel_size == (3, 3) and convolution.groups == 1
    fits = dense and convolution.stride == (1, 1)
    return fits and (of_detector or dtype == torch.float32)


def _add_rectified(
    layers: Layers, maps: Maps, parts: Iterable[nn.Module], out: Maps | None = None
) -> Maps:
    """Add a convolution with its norm and its rectifier; without one, a plain rectifier."""
    convolution, norm, *rectifier = parts
    convolution = cast("nn.Conv2d", convolution)
    leak = rectifier_leak(rectifier[0]) if rectifier else 0.0
    return layers.convolution(
        *(maps, fold_norm(convolution, norm)),
        stride=convolution.stride[0],
        padding=cast("int", convolution.padding[0]),
        leak=leak,
        out=out,
        winograd=_takes_tiles(convolution, layers.dtype, of_detector=True),
    )


def _add_context(layers: Layers, level: Maps, context: Context) -> Maps:
    """Add SSH's context module; its three branches write to parts of the same maps."""
    parts = context.conv3X3, context.conv5X5_2, context.conv7x7_3
    widths = [cast("nn.Conv2d", part[0]).out_channels for part in parts]
    near, middle, far = widths
    whole = layers.maps(sum(widths))
    _add_rectified(layers, level, context.conv3X3, whole.part(0, near))
    shared = _add_rectified(layers, level, context.conv5X5_1)
    _add_rectified(layers, shared, context.conv5X5_2, whole.part(near, middle))
    deeper = _add_rectified(layers, shared, context.conv7X7_2)
    _add_rectified(layers, deeper, context.conv7x7_3, whole.part(near + middle, far))
    return whole
