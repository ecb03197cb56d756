"""Convolutions made ready give what the plain modules give."""

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
    FusedConvolution,
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
) -> None:
    weight, bias = _random(width, channels, kernel, kernel), _random(width, seed=1)
    maps = _random(images, channels, height, across, seed=2)
    plain = F.conv2d(maps, weight, bias, stride, kernel // 2)
    expected = plain if leak is None else F.leaky_relu(plain, leak)
    found = FusedConvolution(weight, bias, stride=stride, leak=leak)(maps)
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
        made = FusedConvolution(weight, bias, stride=2, groups=groups, padding=padding, leak=leak)
        torch.testing.assert_close(made(maps), expected, **SAME)


@pytest.mark.parametrize("width", [12, 16])
def test_packed_weights_survive_copies_and_pickles(width: int) -> None:
    made = FusedConvolution(_random(width, 4, 3, 3), _random(width, seed=1))
    maps = _random(1, 4, 20, 20, seed=2)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(maps), made(maps))
