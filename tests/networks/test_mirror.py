import pytest
import torch

from pcnn.networks.mirror import TWINS, mirrored, read_both
from pcnn.networks.pcnn import PCNN, FaceNet, ModelConfig
from pcnn.networks.regions import REGIONS

CONFIG = ModelConfig(size=64, mean=(0.5,), std=(0.25,), width=8)


def test_left_and_right_change_places() -> None:
    assert TWINS["left_eye"] == "right_eye" and TWINS["right_cheek"] == "left_cheek"
    assert TWINS["face"] == "face" and TWINS["mouth"] == "mouth"


def test_the_views_of_the_mirrored_face_are_the_mirrored_views() -> None:
    network = PCNN(CONFIG)
    face = torch.randn(2, 1, 64, 64)
    found, expected = mirrored(network.cut(face)), network.cut(face.flip(3))
    for own, wanted in zip(found, expected, strict=True):
        assert torch.equal(own, wanted)


def test_the_mean_of_both_by_the_long_way() -> None:
    torch.manual_seed(0)
    network = PCNN(CONFIG).eval()
    face = torch.randn(2, 1, 64, 64)
    logits, own = network.forward_views(network.cut(face))
    twin_logits, twins = network.forward_views(network.cut(face.flip(3)))
    both, regions = read_both(network.forward_views, network.cut(face))
    torch.testing.assert_close(both, (logits + twin_logits) / 2)
    for name in REGIONS:
        torch.testing.assert_close(regions[name], (own[name] + twins[TWINS[name]]) / 2)


def test_mirror_images_at_hand_are_not_made_again() -> None:
    torch.manual_seed(0)
    network = PCNN(CONFIG).eval()
    views = network.cut(torch.randn(2, 1, 64, 64))
    made, own = read_both(network.forward_views, views)
    logits, regions = read_both(network.forward_views, views, [view.flip(3) for view in views])
    assert torch.equal(made, logits)
    assert all(torch.equal(own[name], regions[name]) for name in REGIONS)
    other, _ = read_both(network.forward_views, views, [view.flip(2) for view in views])
    assert not torch.allclose(other, logits, atol=1e-3)


def test_a_mirrored_face_gets_the_same_answer() -> None:
    torch.manual_seed(0)
    network = PCNN(CONFIG).eval()
    views = network.cut(torch.randn(3, 1, 64, 64))
    first, _ = read_both(network.forward_views, views)
    second, _ = read_both(network.forward_views, mirrored(views))
    torch.testing.assert_close(first, second)
    alone, _ = network.forward_views(views)
    assert not torch.allclose(first, alone, atol=1e-3)


@pytest.mark.parametrize("faces", [0, 2])
def test_a_network_of_the_whole_face_alone(faces: int) -> None:
    network = FaceNet(CONFIG).eval()
    face = torch.randn(faces, 1, 64, 64)
    logits, regions = read_both(lambda views: (network(views[0]), {}), [face])
    torch.testing.assert_close(logits, (network(face) + network(face.flip(3))) / 2)
    assert regions == {}
