"""What both trainings share: which parameters decay, and the mean of past weights."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser of torch.

    Matrices and kernels decay; biases and norms do not, which decay would merely shrink.
    """
    heavy = [value for value in network.parameters() if value.dim() > 1]
    light = [value for value in network.parameters() if value.dim() <= 1]
    return [
        {"params": heavy, "weight_decay": weight_decay},
        {"params": light, "weight_decay": 0.0},
    ]


def average_decay(step: int, most: float) -> float:
    """How much of the mean of past weights stays at a step, 0…`most`.

    It grows with the steps, so that the mean forgets its random start soon.
    """
    return min(most, (1 + step) / (10 + step))
