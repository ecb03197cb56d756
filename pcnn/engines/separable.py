"""MobileNet's blocks and the landmark network prepared for a CPU.

Norms are folded, rectifiers fused, weights packed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from pcnn.engines.compiled import CompiledSequence, CompiledTrunk
from pcnn.engines.convolutions import FusedConvolution
from pcnn.engines.folding import fold_norm
from pcnn.engines.layers import can_run
from pcnn.networks.landmarks import LandmarkNet
from pcnn.networks.mobilenet import FINE_BLOCKS, MobileTrunk, SeparableBlock, pad_same
from pcnn.networks.movements import Motion, MovementNet
from pcnn.networks.pcnn import PCNN, FaceNet

_MOST = 6.0  # the upper bound of ReLU6


def fuse_blocks(body: PCNN | FaceNet, dtype: torch.dtype) -> None:
    """Replace a network's trunks and stage 4 by fused blocks, in place.

    body: a network with the backbone "mobilenet", in eval mode; float32 on a CPU.
    dtype: of the arithmetic.
    """
    if isinstance(body, PCNN):
        for name, trunk in body.trunks.items():
            body.trunks[name] = _FusedTrunk(trunk, dtype)  # type: ignore[arg-type]
    else:
        body.trunk = _FusedTrunk(body.trunk, dtype)  # type: ignore[arg-type]
    body.layer4 = _fused(body.layer4, dtype)


def prepare_movements(network: MovementNet) -> Callable[[Tensor], Motion]:
    """A function from normalised faces (B, 3, S, S) to their Motion; the same answers, quicker.

    network: in eval mode; not changed. On a CPU its trunk's blocks are fused; on other devices it
    is the network itself. Threads may share it.
    """
    if next(network.parameters()).device.type != "cpu":
        return network
    twin = copy.deepcopy(network)
    compiled = CompiledTrunk if can_run(next(network.parameters())) else _FusedTrunk
    twin.trunk = compiled(network.trunk)  # type: ignore[assignment]
    return twin


def prepare_landmarks(network: LandmarkNet) -> Callable[[Tensor], Tensor]:
    """A function from normalised faces (B, 1, S, S) to landmarks (B, 5, 2); the same, quicker.

    network: in eval mode; not changed. On other devices than a CPU it is the network itself.
    Threads may share it.
    """
    if next(network.parameters()).device.type != "cpu":
        return network
    twin = copy.deepcopy(network)
    compiled = CompiledSequence if can_run(next(network.parameters())) else _FusedLayers
    twin.trunk = compiled(network.trunk)  # type: ignore[assignment]
    return twin


def _fused(blocks: nn.Sequential, dtype: torch.dtype) -> nn.Sequential:
    return nn.Sequential(*(_FusedBlock(cast("SeparableBlock", block), dtype) for block in blocks))


class _FusedBlock(nn.Module):
    def __init__(self, block: SeparableBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self._stride = block.stride
        self._depthwise = FusedConvolution(
            *fold_norm(block.depthwise, block.bn1, dtype),
            stride=block.stride,
            groups=block.depthwise.groups,
            padding=1 if block.stride == 1 else 0,
            most=_MOST,
        )
        self._pointwise = FusedConvolution(
            *fold_norm(block.pointwise, block.bn2, dtype), most=_MOST
        )

    def forward(self, maps: Tensor) -> Tensor:
        padded = maps if self._stride == 1 else pad_same(maps, self._stride)
        return self._pointwise(self._depthwise(padded))


class _FusedTrunk(nn.Module):
    def __init__(self, trunk: MobileTrunk, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        stem = fold_norm(trunk.conv1, trunk.bn1, dtype)
        self._stem = FusedConvolution(*stem, stride=2, padding=0, most=_MOST)
        blocks = _fused(trunk.blocks, dtype)
        self._first, self._last = blocks[:FINE_BLOCKS], blocks[FINE_BLOCKS:]

    def forward(self, view: Tensor) -> Tensor:
        return self.both(view)[1]

    def both(self, view: Tensor) -> tuple[Tensor, Tensor]:
        fine: Tensor = self._first(self._stem(pad_same(view, 2)))
        return fine, self._last(fine)


class _FusedLayers(nn.Module):
    def __init__(self, trunk: nn.Sequential) -> None:
        super().__init__()
        layers = cast("list[nn.Conv2d]", list(trunk))  # convolution, norm, rectifier, …
        self._layers = [
            FusedConvolution(*fold_norm(convolution, norm), stride=convolution.stride[0])
            for convolution, norm in zip(layers[::3], layers[1::3], strict=True)
        ]

    def forward(self, maps: Tensor) -> Tensor:
        for layer in self._layers:
            maps = layer(maps)
        return maps
