"""An ensemble's answer is the mean of what its networks answer for the same face."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.errors import InputError
from pcnn.networks.ensemble import Ensemble, Member
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS

GREY = ModelConfig(classes=("a", "b", "c"), size=48, mean=(0.5,), std=(0.25,), width=4)
COLOUR = ModelConfig(
    classes=("a", "b", "c"),
    size=64,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    width=4,
    backbone="mobilenet",
)
MEMBERS = (Member(0.25, 0.5), Member(0.75, 2.0))


def networks() -> tuple[PCNN, FaceNet]:
    return PCNN(GREY).eval().requires_grad_(False), FaceNet(COLOUR).eval().requires_grad_(False)


def smooth_faces(count: int, size: int) -> Tensor:
    """(count, 3, size, size) of 0…1, without details that resizing loses."""
    coarse = torch.rand(count, 3, 5, 5)
    return F.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)


def normalised(planes: Tensor, config: ModelConfig) -> Tensor:
    mean, std = torch.tensor(config.mean), torch.tensor(config.std)
    return (planes - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def test_the_answer_is_the_weighted_mean_of_log_probabilities() -> None:
    pcnn, plain = networks()
    ensemble = Ensemble([pcnn, plain], MEMBERS)
    assert ensemble.config == COLOUR
    planes = smooth_faces(3, 64)
    luma = (planes * torch.tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    small = F.interpolate(luma, (48, 48), mode="bilinear", antialias=True)
    first, regions = pcnn(normalised(small, GREY))
    second = plain(normalised(planes, COLOUR))
    expected = 0.25 * (first / 0.5).log_softmax(1) + 0.75 * (second / 2.0).log_softmax(1)
    logits, own = ensemble.forward_views(ensemble.cut(normalised(planes, COLOUR)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert tuple(own) == REGIONS == ensemble.regions
    torch.testing.assert_close(sum(own.values()), regions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        ensemble(normalised(planes, COLOUR))[1], regions, rtol=1e-4, atol=1e-5
    )


def test_without_a_pcnn_there_are_no_regions() -> None:
    plain = networks()[1]
    ensemble = Ensemble([plain, copy.deepcopy(plain)], MEMBERS)
    face = torch.randn(2, 3, 64, 64)
    logits, regions = ensemble.forward_views([face])
    assert regions == {} and ensemble.regions == () and ensemble(face)[1] is None
    assert ensemble.embedding_size == 2 * COLOUR.features
    assert logits.shape == (2, 3)


def test_networks_that_do_not_fit_are_named() -> None:
    pcnn, plain = networks()
    with pytest.raises(InputError, match="two networks or more and a member for each, got 1 and 2"):
        Ensemble([pcnn], MEMBERS)
    other = FaceNet(ModelConfig(classes=("a", "b", "d"), size=64, width=4))
    with pytest.raises(InputError, match="the same classes"):
        Ensemble([pcnn, other], MEMBERS)
    with pytest.raises(InputError, match="no saliency model"):
        weighed = ModelConfig(classes=("a", "b", "c"), size=64, width=4, saliency="itti")
        Ensemble([plain, FaceNet(weighed)], MEMBERS)
    fine = PCNN(ModelConfig(classes=("a", "b", "c"), size=96, mean=(0.5,), std=(0.2,), width=4))
    with pytest.raises(InputError, match="finest network must see colours"):
        Ensemble([fine, plain], MEMBERS)
