"""The gradients of the compiled ops: those of the reference, at the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pcnn.ops import reference


def save_regions(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *regions, height, width = inputs
    ctx.size = (height, width)
    ctx.save_for_backward(*regions)


def stitch_regions_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    def stitch(*regions: Tensor) -> Tensor:
        return reference.stitch_regions(regions, ctx.size)

    return *_gradients(stitch, ctx, grad), None, None


def save_all(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def warp_add_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _gradients(reference.warp_add, ctx, grad)


def _gradients(function: Callable[..., Tensor], ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    """The reference's gradients at the saved inputs, after a new forward pass."""
    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        output = function(*inputs)
    return torch.autograd.grad(output, inputs, grad)
