"""Parameters by whether they decay."""

from __future__ import annotations

from typing import Any

from torch import nn


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices and kernels; none for biases and batch norms."""
    heavy = [value for value in network.parameters() if value.dim() > 1]
    light = [value for value in network.parameters() if value.dim() <= 1]
    return [
        {"params": heavy, "weight_decay": weight_decay},
        {"params": light, "weight_decay": 0.0},
    ]
