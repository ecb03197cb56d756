"""Folding of batch norms into the convolutions before them."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pcnn.networks.pcnn import PCNN, FaceNet
from pcnn.networks.retinaface import RetinaFace
from pcnn.networks.trunk import BasicBlock


def fold_norm(
    convolution: nn.Conv2d, norm: nn.Module | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Weight (N, C, k, k) and bias (N,) of a convolution that includes the norm after it.

    norm: a BatchNorm2d in eval mode, with running statistics; any other module is ignored.
    dtype: of the result; None means that of the weights.
    """
    weight = convolution.weight.detach()
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach()
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return weight.to(dtype or weight.dtype), bias.to(dtype or weight.dtype)
    mean, variance = norm.running_mean, cast("Tensor", norm.running_var)
    scale = norm.weight.detach() * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.detach() + (bias - mean) * scale
    return (weight * scale[:, None, None, None]).to(dtype or weight.dtype), shift.to(
        dtype or weight.dtype
    )


def split_head(network: PCNN | FaceNet) -> tuple[PCNN | FaceNet, nn.Module]:
    """A copy of the network without its expression head, with folded norms; and the head."""
    network = copy.deepcopy(network)
    for module in network.modules():
        for convolution, norm in getattr(module, "NORMS", ()):
            _fold(module, convolution, norm)
        if isinstance(module, BasicBlock) and module.downsample is not None:
            _fold(module.downsample, "0", "1")
    name = "expression_head" if isinstance(network, PCNN) else "head"
    head: nn.Module = getattr(network, name)
    setattr(network, name, nn.Identity())
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
