"""Convolutions made ready: both ways of computing give what the plain modules give."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pcnn.engines import convolutions as packed
from pcnn.engines.convolutions import (
    Convolution,
    DirectConvolution,
    as_matrix,
    patch_index,
    used_taps,
    with_zeros,
)
from pcnn.engines.folding import fold_norm

# Sums of up to 9 · 24 products of order 1 in another order: 2⁻²⁴ of each, some hundred times.
SAME = {"rtol": 1e-4, "atol": 1e-4}


def _random(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def test_a_norm_folded_by_hand() -> None:
    convolution = nn.Conv2d(1, 1, 1)
    norm = nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        convolution.weight.fill_(6)
        convolution.bias.fill_(5)  # type: ignore[union-attr]
        norm.weight.fill_(2)
        norm.bias.fill_(7)
        norm.running_mean.fill_(3)  # type: ignore[union-attr]
        norm.running_var.fill_(16)  # type: ignore[union-attr]
    # (6 x + 5 - 3) / 4 · 2 + 7 = 3 x + 8
    weight, bias = fold_norm(convolution, norm)
    assert (weight.item(), bias.item()) == (3, 8)
    assert [part.item() for part in fold_norm(convolution, nn.Identity())] == [6, 5]
    assert fold_norm(nn.Conv2d(2, 3, 1, bias=False))[1].tolist() == [0, 0, 0]


def test_patches_by_hand() -> None:
    """A kernel of 3 over a map of 1 × 2 pixels, rows 1 and 2; row 0 is what lies outside."""
    taps = [[0, 0, 0, 0, 1, 2, 0, 0, 0], [0, 0, 0, 1, 2, 0, 0, 0, 0]]
    assert patch_index(1, 1, 2, 3, 1).view(2, 9).tolist() == taps
    # Only the kernel's middle row ever meets a pixel; with two images the second's follow.
    trimmed = patch_index(2, 1, 2, 3, 1, True).view(2, 2, 3)
    assert trimmed.tolist() == [[[0, 1, 2], [1, 2, 0]], [[0, 3, 4], [3, 4, 0]]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "taps"),
    [
        (1, 3, 1, [1]),
        (2, 3, 1, [0, 1, 2]),
        (2, 3, 2, [1, 2]),
        (3, 3, 2, [0, 1, 2]),
        (1, 7, 2, [3]),
        (2, 7, 2, [3, 4]),
        (5, 1, 2, [0]),
    ],
)
def test_taps_that_only_meet_zeros_are_found(
    size: int, kernel: int, stride: int, taps: list[int]
) -> None:
    assert used_taps(size, kernel, stride) == taps


@settings(max_examples=30)
@given(
    images=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8]),
    width=st.sampled_from([4, 6, 16]),
    height=st.integers(1, 9),
    across=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 2),
    leak=st.sampled_from([None, 0.0, 0.1]),
    direct=st.booleans(),
)
def test_every_convolution_is_pytorch_s(  # noqa: PLR0913, PLR0917
    images: int,
    channels: int,
    width: int,
    height: int,
    across: int,
    kernel: int,
    stride: int,
    leak: float | None,
    direct: bool,
) -> None:
    weight, bias = _random(width, channels, kernel, kernel), _random(width, seed=1)
    maps = _random(images, channels, height, across, seed=2)
    plain = F.conv2d(maps, weight, bias, stride, kernel // 2)
    expected = plain if leak is None else F.leaky_relu(plain, leak)
    kind = DirectConvolution if direct else Convolution
    found = kind(weight, bias, stride=stride, leak=leak)(maps)
    torch.testing.assert_close(found, expected, **SAME)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("leak", [None, 0.0, 0.1])
def test_groups_paddings_and_pytorch_without_onednn(
    monkeypatch: pytest.MonkeyPatch, fused: bool, leak: float | None
) -> None:
    if not fused:
        monkeypatch.setattr(packed, "has_fused_convolutions", lambda: False)
    maps = _random(2, 8, 7, 6)
    for groups, padding in ((8, None), (2, 0), (1, 2)):
        weight, bias = _random(16, 8 // groups, 3, 3, seed=1), _random(16, seed=2)
        plain = F.conv2d(maps, weight, bias, 2, 1 if padding is None else padding, 1, groups)
        expected = plain if leak is None else F.leaky_relu(plain, leak)
        made = DirectConvolution(weight, bias, stride=2, groups=groups, padding=padding, leak=leak)
        torch.testing.assert_close(made(maps), expected, **SAME)


@pytest.mark.parametrize("width", [12, 16])
def test_packed_weights_survive_copies_and_pickles(width: int) -> None:
    made = DirectConvolution(_random(width, 4, 3, 3), _random(width, seed=1))
    maps = _random(1, 4, 20, 20, seed=2)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(maps), made(maps))


@pytest.mark.parametrize(("pixels", "multiplied"), [(4, True), (300, False)])
def test_the_way_goes_by_size(
    monkeypatch: pytest.MonkeyPatch, pixels: int, multiplied: bool
) -> None:
    """36 · 64 patches of 9 · 8 numbers are few, those of 300 · 300 pixels many."""
    calls: list[int] = []
    monkeypatch.setattr(DirectConvolution, "__call__", lambda _, maps: calls.append(1) or maps)
    Convolution(_random(4, 8, 3, 3), _random(4))(_random(1, 8, pixels, pixels))
    assert (not calls) is multiplied


def test_matrices_are_in_the_order_of_patches() -> None:
    weight, maps = _random(5, 2, 3, 3), _random(1, 2, 4, 3, seed=1)
    rows = with_zeros(maps.permute(0, 2, 3, 1).reshape(-1, 2))
    patches = rows[patch_index(1, 4, 3, 3, 1).long()].view(12, 18)
    found = (patches @ as_matrix(weight)).view(1, 4, 3, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(maps, weight, padding=1), **SAME)
    some = as_matrix(weight, ([1], [0, 2]))
    assert torch.equal(some, torch.cat([weight[:, :, 1, 0].t(), weight[:, :, 1, 2].t()]))
