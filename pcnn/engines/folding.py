"""Folding of batch norms into the convolutions before them, and of residual sums on a GPU.

On an NVIDIA GPU a residual block has four or five launches instead of seven or nine: cuDNN adds
bias and shortcut and rectifies while it writes the second convolution's results. The first one is
left plain: PyTorch's `cudnn_convolution_relu` gives cuDNN its own undefined results as the
shortcut, with the factor 0. Whether every kernel leaves them unread is known of none.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pcnn.engines.cuda_graphs import nearly_equal
from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.retinaface import RetinaFace
from pcnn.networks.trunk import BasicBlock

# Errors of the GPU itself, which say nothing about a kernel. PyTorch before 2.8 has only the first.
_NO_REFUSAL: tuple[type[RuntimeError], ...] = (torch.OutOfMemoryError,)
if hasattr(torch, "AcceleratorError"):
    _NO_REFUSAL += (torch.AcceleratorError,)


def fold_norm(
    convolution: nn.Conv2d, norm: nn.Module | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (N, C, k, k) and bias (N,) of a convolution that includes the norm after it.

    norm: a BatchNorm2d in eval mode, with running statistics; any other module is ignored.
    dtype: of the result; None means that of the weights.
    """
    weight = convolution.weight.detach()
    dtype = dtype or weight.dtype
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return weight.to(dtype), bias.to(dtype)
    mean, variance = norm.running_mean, cast("Tensor", norm.running_var)
    scale = norm.weight.detach() * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.detach() + (bias - mean) * scale
    return (weight * scale[:, None, None, None]).to(dtype), shift.to(dtype)


def split_head(network: PCNN | FaceNet) -> tuple[PCNN | FaceNet, nn.Module]:
    """A copy of the network without its expression head, with folded norms; and the head."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for convolution, norm in getattr(module, "NORMS", ()):
            _fold(module, convolution, norm)
        if isinstance(module, BasicBlock) and module.downsample is not None:
            _fold(module.downsample, "0", "1")
    head = network.own_head
    setattr(network, network.HEAD, nn.Identity())
    return network, head


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    """Fold a module's batch norm into its convolution, in place."""
    found = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
    setattr(module, convolution, found)
    setattr(module, norm, nn.Identity())


def fold_batch_norms(network: RetinaFace) -> RetinaFace:
    """Fold each batch norm that follows a convolution in a Sequential, in place.

    For inference only. Outputs differ only by rounding. Returns the same network.
    """
    for container in list(network.modules()):
        if not isinstance(container, nn.Sequential):
            continue
        layers = list(container)
        for index, (first, second) in enumerate(pairwise(layers)):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                container[index] = fuse_conv_bn_eval(first, second)
                container[index + 1] = nn.Identity()
    return network


def fuse_residuals(body: PCNN | FaceNet) -> PCNN | FaceNet:
    """The network with fused blocks, or itself where they cannot be used.

    body: in eval mode, with folded norms, on its device and in its dtype. It is not changed, and
        the fused network shares its weights.
    A probe with one face decides: both must give the same embedding, up to rounding. Networks on
    other devices or of another backbone are returned at once.
    """
    if body.config.backbone != "resnet18" or next(body.parameters()).device.type != "cuda":
        return body
    twin = with_fused_blocks(body)
    return twin if gives_the_same(twin, body) else body


def with_fused_blocks(body: PCNN | FaceNet) -> PCNN | FaceNet:
    """A network like `body`, a ResNet with folded norms, with fused blocks and the same weights."""
    shared = {id(own): own for own in (*body.parameters(), *body.buffers())}
    twin = copy.deepcopy(body, shared)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, BasicBlock):
                setattr(module, name, _FusedResidual(child))
    return twin


@torch.no_grad()
def gives_the_same(twin: PCNN | FaceNet, body: PCNN | FaceNet) -> bool:
    """Whether both networks give one embedding of a face of random pixels, up to rounding."""
    config, weight = body.config, next(body.parameters())
    numbers = torch.Generator().manual_seed(0)
    face = torch.randn(1, config.channels, config.size, config.size, generator=numbers).to(weight)
    views = body.cut(face.contiguous(memory_format=torch.channels_last))
    return nearly_equal(*(each.forward_views(views)[0] for each in (twin, body)))


class _FusedResidual(nn.Module):
    """A residual block with folded norms. If cuDNN refuses, the plain block serves from then on."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self._block, self._usable = block, True
        self._weight, self._bias = fold_norm(block.conv2)
        self._shortcut: Tensor | None = None
        self._stride = block.conv1.stride
        if block.downsample is not None:
            self._shortcut, bias = fold_norm(cast("nn.Conv2d", block.downsample[0]))
            self._bias = self._bias + bias  # of both sums at once

    def forward(self, maps: Tensor) -> Tensor:
        """See BasicBlock.forward."""
        if not self._usable:
            return self._plain(maps)
        shortcut = maps
        if self._shortcut is not None:
            shortcut = F.conv2d(maps, self._shortcut, None, self._stride)
        hidden = F.relu(self._block.conv1(maps), inplace=True)
        one = [1, 1]
        # Hidden maps, shortcut and results are three memories: cuDNN has failed where two were one.
        try:
            found: Tensor = torch.cudnn_convolution_add_relu(
                hidden, self._weight, shortcut, 1.0, self._bias, one, one, one, 1
            )
        except _NO_REFUSAL:
            raise
        except RuntimeError:
            self._usable = False
            return self._plain(maps)
        return found

    def _plain(self, maps: Tensor) -> Tensor:
        found: Tensor = self._block(maps)
        return found
