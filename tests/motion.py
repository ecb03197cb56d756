"""Small movement and landmark networks of random numbers, and faces for them to learn from."""

from __future__ import annotations

from pathlib import Path

import torch

from pcnn.networks.landmarks import LandmarkConfig, LandmarkNet
from pcnn.networks.movements import MovementConfig, MovementNet
from pcnn.networks.trunk import initialise
from pcnn.training.teacher_answers import TEMPLATE, TaughtFaces
from pcnn.weights.landmarks import write_landmarks
from pcnn.weights.movements import write_movements

NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight")
# Places in a face of side 1: the five landmarks, chin, and two points on the brows.
MESH = (*TEMPLATE, (0.5, 0.95), (0.3, 0.3), (0.7, 0.3))
TWINS = (1, 0, 2, 4, 3, 5, 7, 6)


def movement_net() -> MovementNet:
    """A network for faces of 32 pixels, in eval mode, whose mesh starts at MESH."""
    torch.manual_seed(5)
    network = MovementNet(MovementConfig(NAMES, points=len(MESH), size=32, width=2))
    initialise(network)
    network.twins.copy_(torch.tensor(TWINS))
    network.start_mesh(torch.tensor(MESH) + 0.01 * torch.randn(20, len(MESH), 2))
    network.train()
    for _ in range(10):  # settles the batch norms
        network(torch.randn(8, 3, 32, 32))
    return network.eval()


def movement_file(path: Path, *, mirror: bool = False) -> Path:
    """A weights file of `movement_net`."""
    write_movements(path, movement_net(), TEMPLATE, {"mirror": mirror})
    return path


def landmark_net() -> LandmarkNet:
    """A network for faces of 32 pixels, in eval mode, whose landmarks start at TEMPLATE."""
    torch.manual_seed(6)
    network = LandmarkNet(LandmarkConfig(size=32))
    initialise(network)
    network.start(torch.tensor(TEMPLATE))
    network.train()
    for _ in range(10):  # settles the batch norms
        network(torch.randn(8, 1, 32, 32))
    return network.eval()


def landmark_file(path: Path) -> Path:
    """A weights file of `landmark_net`."""
    write_landmarks(path, landmark_net(), TEMPLATE, {})
    return path


def taught_faces(count: int, side: int = 48, channels: int = 1) -> TaughtFaces:
    """Faces of random pixels, whose meshes lie about MESH; every second one smiles at one side."""
    generator = torch.Generator().manual_seed(count)
    pictures = torch.randint(0, 256, (count, side, side, channels), generator=generator)
    points = torch.tensor(MESH) + 0.01 * torch.randn(count, len(MESH), 2, generator=generator)
    movements = torch.zeros(count, len(NAMES))
    movements[::2, 1] = 0.8
    pose = 10 * torch.randn(count, 3, generator=generator)
    points = side * points
    return TaughtFaces(pictures.byte(), points[:, :5], points, movements, pose, NAMES)
