"""Random numbers of trainings."""

from __future__ import annotations

import itertools

import torch

from pcnn.training.seeds import step_generator, step_seed


def test_each_process_has_numbers_of_its_own() -> None:
    """Also beside those of another seed."""
    every = [
        step_seed(seed, purpose, step, rank=rank)
        for seed, purpose, step, rank in itertools.product((0, 1, 9), range(4), (0, 7), range(4))
    ]
    assert len(set(every)) == len(every)


def test_numbers_are_those_of_earlier_versions() -> None:
    """Weights in the repository were trained with them."""
    expected = torch.Generator().manual_seed((3 * 4 + 2) * 1_000_003 + 5)
    found = step_generator(3, 2, 5)
    assert torch.equal(torch.rand(4, generator=found), torch.rand(4, generator=expected))
