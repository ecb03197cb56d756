"""Reductions of pictures, in one step and in several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pcnn.faces.resampling import reduction_steps, resized, resized_by_steps, to_pictures


def ramp(height: int, width: int) -> Tensor:
    """(H, W, 3) float32: as bright as the row is low, 0…255."""
    return torch.linspace(0, 255, height)[:, None, None].expand(height, width, 3).contiguous()


@pytest.mark.parametrize(
    ("given", "size", "steps"),
    [
        ((480, 640), (480, 640), [(480, 640)]),
        ((12000, 16000), (480, 640), [(480, 640)]),
        ((640, 10), (10, 1), [(10, 1)]),
        ((641, 10), (10, 1), [(11, 1), (10, 1)]),
        ((12000, 16000), (120, 160), [(188, 250), (120, 160)]),
        ((1, 200_000_000), (1, 640), [(1, 3_125_000), (1, 48_829), (1, 763), (1, 640)]),
        ((100, 40), (300, 120), [(300, 120)]),
    ],
)
def test_steps_by_hand(
    given: tuple[int, int], size: tuple[int, int], steps: list[tuple[int, int]]
) -> None:
    assert reduction_steps(given, size) == steps


def test_several_steps_give_what_one_gives() -> None:
    picture = ramp(9000, 30)
    planes = picture.permute(2, 0, 1)[None]
    steps = reduction_steps((9000, 30), (60, 1))
    planes = resized_by_steps(planes, steps)
    assert len(steps) == 2
    # A step blurs over two pixels of its result; a row is 255 / 60 = 4 levels brighter.
    torch.testing.assert_close(
        planes[0].permute(1, 2, 0), resized(picture, (60, 1)), atol=2, rtol=0
    )


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_huge_picture_is_reduced_on_a_gpu() -> None:
    picture = ramp(20_000, 200)
    found = resized(picture.cuda(), (160, 2))
    torch.testing.assert_close(found.cpu(), resized(picture, (160, 2)), atol=1, rtol=0)


def test_grey_faces_become_pictures_of_three_equal_channels() -> None:
    grey = torch.arange(12, dtype=torch.uint8).view(2, 2, 3)
    pictures = to_pictures(grey)
    assert [own.shape for own in pictures] == [(2, 3, 3)] * 2
    for channel in range(3):
        np.testing.assert_array_equal(pictures[1][..., channel], grey[1].numpy())
    colours = torch.arange(36, dtype=torch.uint8).view(2, 2, 3, 3)
    np.testing.assert_array_equal(to_pictures(colours), colours.numpy())
    assert to_pictures(grey[:0]) == []
