"""Random numbers of a training, which are functions of its seed, their purpose and the step."""

from __future__ import annotations

import torch

_PURPOSES = 4
_STEPS = 1_000_003  # more than any training has
_RANK = 2**48  # between the seeds of two processes


def step_seed(seed: int, purpose: int, step: int, *, rank: int = 0) -> int:
    """The seed for one purpose (0…3) of one step; rank: of a process whose numbers are its own."""
    return (seed * _PURPOSES + purpose) * _STEPS + step + rank * _RANK


def step_generator(seed: int, purpose: int, step: int, *, rank: int = 0) -> torch.Generator:
    """The random numbers for one purpose (0…3) of one step, see step_seed."""
    return torch.Generator().manual_seed(step_seed(seed, purpose, step, rank=rank))
