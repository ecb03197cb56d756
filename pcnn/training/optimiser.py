"""Common parts of the trainings: weight decay, learning rate, and the weight average."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser of torch.

    Weight decay applies to matrices and kernels, not to biases and norms.
    """
    heavy = [value for value in network.parameters() if value.dim() > 1]
    light = [value for value in network.parameters() if value.dim() <= 1]
    return [
        {"params": heavy, "weight_decay": weight_decay},
        {"params": light, "weight_decay": 0.0},
    ]


def average_decay(step: int, most: float) -> float:
    """The decay of the running weight average at a step, 0…`most`.

    It grows with the steps, so that random initial weights soon lose their influence.
    """
    return min(most, (1 + step) / (10 + step))


def one_cycle(done: float, warm_up: float) -> float:
    """The learning rate as a share of its peak: a linear rise, then half a cosine.

    done: the share of the steps, 0…1. warm_up: the share of the rise, at least 0 and below 1.
    """
    if done < warm_up:
        return done / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up))


@torch.no_grad()
def pull(network: nn.Module, other: nn.Module, share: float) -> None:
    """Move a network's weights and norm statistics towards another's, by a share of the difference.

    other: a network of the same shape. Integer counts are copied from it.
    """
    ours, theirs = network.state_dict(), other.state_dict()
    floating = [name for name, value in ours.items() if value.is_floating_point()]
    torch._foreach_lerp_(
        [ours[name] for name in floating], [theirs[name] for name in floating], share
    )
    for name in ours.keys() - set(floating):
        ours[name].copy_(theirs[name])
