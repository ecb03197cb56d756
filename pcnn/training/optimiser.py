"""Common parts of both trainings: parameter groups for weight decay, and the weight average."""

from __future__ import annotations

from typing import Any

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
