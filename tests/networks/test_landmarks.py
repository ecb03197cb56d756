"""The landmark network: shapes, its start, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from pcnn.errors import InputError
from pcnn.networks.landmarks import LandmarkConfig, LandmarkNet
from pcnn.networks.trunk import initialise


def _network(size: int = 32) -> LandmarkNet:
    torch.manual_seed(2)
    network = LandmarkNet(LandmarkConfig(size=size))
    initialise(network)
    return network


@pytest.mark.parametrize("size", [32, 40, 64])
def test_shapes(size: int) -> None:
    network = _network(size).eval()
    assert network(torch.randn(3, 1, size, size)).shape == (3, 5, 2)
    assert network(torch.randn(0, 1, size, size)).shape == (0, 5, 2)


def test_it_starts_at_given_points() -> None:
    network, places = _network(), torch.rand(5, 2)
    network.start(places)
    found = network.train()(torch.randn(64, 1, 32, 32))
    assert (found - places).abs().mean() < 0.2
    torch.testing.assert_close(network.points.bias.detach(), places.flatten())


def test_faces_in_bfloat16_have_points_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert _network()(torch.randn(2, 1, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 32, 33), (1, 32, 32)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="LandmarkNet: face must be"):
        _network()(torch.zeros(shape))
