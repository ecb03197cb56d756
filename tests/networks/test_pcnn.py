import dataclasses

import pytest
import torch

from pcnn.errors import InputError
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS, VIEWS
from pcnn.networks.trunk import Trunk
from pcnn.training.expression.losses import two_phase_loss

GREY = ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)


def test_size_of_the_papers_network() -> None:
    """25.9 M parameters at 224 (Tian et al. 2025), and 256 channels at stride 16."""
    with torch.device("meta"):
        network = PCNN(ModelConfig(classes=tuple("abcdefgh")))
        assert Trunk()(torch.empty(1, 3, 224, 224)).shape == (1, 256, 14, 14)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == 25.9


@pytest.mark.parametrize("size", [32, 64, 98])
def test_shapes(size: int) -> None:
    network = PCNN(ModelConfig(size=size, mean=(0.5,), std=(0.25,), width=8)).eval()
    logits, regions = network(torch.randn(2, 1, size, size))
    assert logits.shape == regions.shape == (2, 8)


def test_region_logits_are_the_sum_of_the_regions_own() -> None:
    torch.manual_seed(0)
    network = PCNN(GREY).eval()
    faces = torch.randn(3, 1, 64, 64)
    logits, total = network(faces)
    again, own = network.forward_views(network.cut(faces))
    assert tuple(own) == REGIONS
    torch.testing.assert_close(logits, again)
    torch.testing.assert_close(total, sum(own.values()))


@pytest.mark.parametrize("kind", [PCNN, FaceNet])
def test_both_networks_answer_from_the_maps_of_their_trunks(kind: type[PCNN | FaceNet]) -> None:
    torch.manual_seed(0)
    network = kind(GREY).eval()
    face = torch.randn(2, 1, 64, 64)
    six = PCNN(GREY).cut(face)  # a FaceNet takes the first one alone
    expected, own = network.forward_views(six)
    vectors, pooled = network.features(face)
    torch.testing.assert_close(network.own_head(vectors), expected)
    assert tuple(own) == tuple(pooled) == network.regions
    trunks = network.take_trunks()
    maps = [trunk(view) for trunk, view in zip(trunks, network.cut(face), strict=True)]
    assert len(trunks) == len(network.views)
    assert not any("trunk" in name for name in network.state_dict())
    logits, regions = network.forward_maps(maps)
    torch.testing.assert_close((logits, *regions.values()), (expected, *own.values()))


def test_each_region_head_sees_its_own_region_alone() -> None:
    torch.manual_seed(0)
    network = PCNN(GREY).eval()
    views = network.cut(torch.randn(1, 1, 64, 64))
    _, before = network.forward_views(views)
    views[VIEWS.index("mouth")] = torch.randn_like(views[VIEWS.index("mouth")])
    _, after = network.forward_views(views)
    for region in REGIONS:
        assert torch.equal(before[region], after[region]) == (region != "mouth")


def test_any_size_will_do() -> None:
    # At 97 pixels the right eye's map is a column wider than the left one's.
    network = PCNN(dataclasses.replace(GREY, size=97)).eval()
    logits, _ = network(torch.randn(2, 1, 97, 97))
    assert logits.shape == (2, 8)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(InputError) as error:
        PCNN(GREY)(torch.zeros(1, 3, 64, 64))
    assert str(error.value) == "PCNN: face must be (any, 1, 64, 64), got (1, 3, 64, 64)"


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(InputError, match="ModelConfig: mean and std must be one"):
        ModelConfig(mean=(0.5, 0.5), std=(0.5, 0.5))
    with pytest.raises(InputError, match="classes must be two or more"):
        ModelConfig(classes=("happy",))


def test_every_trunk_starts_from_the_pretrained_one() -> None:
    facenet, network = FaceNet(GREY), PCNN(GREY)
    network.start_from(facenet)
    expected = facenet.trunk.state_dict()
    for trunk in network.trunks.values():
        for name, value in trunk.state_dict().items():
            assert torch.equal(value, expected[name])
    assert torch.equal(network.expression_head.weight, facenet.head.weight)


def test_a_pretrained_network_of_another_kind_is_refused() -> None:
    other = FaceNet(ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=4))
    with pytest.raises(InputError) as error:
        PCNN(GREY).start_from(other)
    assert str(error.value) == (
        "PCNN.start_from: width must be that of the weights to start from, 4, got 8"
    )


def test_all_parameters_learn() -> None:
    torch.manual_seed(0)
    network = PCNN(GREY)
    with torch.no_grad():  # the registration starts with zero weights: move it off its start
        network.interaction.localisation[2].weight.normal_(std=0.01)
    logits, regions = network(torch.randn(4, 1, 64, 64))
    two_phase_loss(logits, regions, torch.tensor([0, 1, 2, 3])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_two_phase_loss_by_hand() -> None:
    """Uniform logits over 4 classes: both cross-entropies are ln 4."""
    zeros = torch.zeros(2, 4)
    targets = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 1.0]])
    loss = two_phase_loss(zeros, zeros, targets)
    assert loss.item() == pytest.approx(20 * 1.3862944, rel=1e-6)
    sure = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 100]])
    loss = two_phase_loss(sure, zeros, targets, alpha=2, beta=1)
    assert loss.item() == pytest.approx(2 * 1.3862944 / 2 + 1.3862944, rel=1e-6)
