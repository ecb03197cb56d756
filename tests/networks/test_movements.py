"""The movement network: its outputs, its mirror images, and where its mesh starts."""

from __future__ import annotations

import pytest
import torch
from motion import MESH, NAMES, TWINS, movement_net

from pcnn.errors import InputError
from pcnn.networks.movements import (
    Motion,
    MovementConfig,
    MovementNet,
    mirror_names,
    mirrored,
)


def test_what_it_gives() -> None:
    found = movement_net()(torch.randn(3, 3, 32, 32))
    assert found.points.shape == (3, len(MESH), 2)
    assert found.movements.shape == (3, len(NAMES)) and found.pose.shape == (3, 3)
    assert ((found.movements > 0) & (found.movements < 1)).all()
    assert movement_net()(torch.randn(0, 3, 32, 32)).pose.shape == (0, 3)


def test_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="MovementNet: face must be"):
        movement_net()(torch.randn(3, 3, 31, 32))


def test_names_have_their_counterparts() -> None:
    assert mirror_names(NAMES) == [0, 2, 1]
    assert mirror_names(("browDownLeft", "jawOpen")) == [0, 1]  # its counterpart is missing


def test_a_mirrored_motion_by_hand() -> None:
    points = torch.tensor([[[0.25, 0.5], [0.625, 0.75]]])
    seen = Motion(points, torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[10.0, -5.0, 3.0]]))
    config = MovementConfig(NAMES, points=2)
    other = mirrored(seen, config, torch.tensor([1, 0]))
    assert other.points.tolist() == [[[0.375, 0.75], [0.75, 0.5]]]
    torch.testing.assert_close(other.movements, torch.tensor([[0.1, 0.3, 0.2]]))
    assert other.pose.tolist() == [[-10, -5, -3]]


def test_mirrored_twice_is_the_same() -> None:
    network = movement_net()
    seen = network(torch.randn(2, 3, 32, 32))
    twins = torch.tensor(TWINS)
    again = mirrored(mirrored(seen, network.config, twins), network.config, twins)
    for own, other in zip(seen, again, strict=True):
        torch.testing.assert_close(own, other)


def test_the_mesh_starts_at_the_mean_and_can_take_known_shapes() -> None:
    points = torch.rand(30, 5, 2)
    network = MovementNet(MovementConfig(NAMES, points=5, size=32, width=2))
    network.start_mesh(points)
    rows = points.flatten(1)
    torch.testing.assert_close(network.mesh.bias, rows.mean(0))
    shapes = network.mesh.weight[:, :10]  # as many as there are numbers of a mesh
    found = torch.linalg.lstsq(shapes, (rows - rows.mean(0)).t()).solution
    torch.testing.assert_close(shapes @ found, (rows - rows.mean(0)).t(), atol=1e-3, rtol=0)


def test_a_mesh_starts_from_two_meshes_or_more() -> None:
    network = MovementNet(MovementConfig(NAMES, points=5, size=32, width=2))
    with pytest.raises(InputError, match="points must be 2 or more, got 1"):
        network.start_mesh(torch.rand(1, 5, 2))
    with pytest.raises(InputError, match="start_mesh: points must be"):
        network.start_mesh(torch.rand(9, 4, 2))
