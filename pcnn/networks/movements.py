"""The network of facial movements: mesh points, movements and head pose from one aligned face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.errors import InputError, check_shape
from pcnn.networks.mobilenet import MobileTrunk
from pcnn.networks.pcnn import IMAGENET_MEAN, IMAGENET_STD
from pcnn.networks.trunk import Convolution

# Channels of the two maps that the hidden layer sees, by their strides.
_REDUCED = {8: 12, 16: 40}
_HIDDEN, _SHAPES = 256, 64  # numbers of the hidden layer, and of the mesh's shapes
# The pose's unit inside the network, in degrees: about the spread of heads in photographs.
_POSE_UNIT = 20.0


@dataclass(frozen=True)
class MovementConfig:
    """The configuration of a movement network's shape and input.

    movements: names in the order of the output, such as "jawOpen". points: of the mesh.
    size: the side of the square face view, in pixels.
    mean, std: normalisation of RGB values 0…1. width: see mobilenet.MobileTrunk.
    """

    movements: tuple[str, ...]
    points: int = 478
    size: int = 112
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    width: int = 32


class Motion(NamedTuple):
    """What a movement network sees in faces.

    points: (B, P, 2), x y as fractions of the face view's side. movements: (B, M), 0…1.
    pose: (B, 3), yaw, pitch and roll in degrees, see results.movements.Pose; the roll is that
        within the view.
    """

    points: Tensor
    movements: Tensor
    pose: Tensor


class Reduction(nn.Module):
    """A trunk's maps with fewer channels, one vector for each face.

    numbers: of a vector.
    """

    def __init__(self, stride: int, config: MovementConfig) -> None:
        super().__init__()
        channels = _REDUCED[stride]
        self.convolution = Convolution(stride * config.width, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        self.numbers = channels * (-(-config.size // stride)) ** 2

    def forward(self, maps: Tensor) -> Tensor:
        """(B, stride · width, side, side) of any float type → (B, numbers) float32."""
        return F.relu6(self.bn(self.convolution(maps.float()))).flatten(1)


class MovementNet(nn.Module):
    """MobileNet-v1's trunk and a hidden layer over its whole maps, of stride 8 and 16.

    The maps are not averaged, because places of points would be lost. Those of stride 8 show
    small movements, as of eyes and lips.
    twins: (P,) int64, each point's counterpart in a mirrored face; a buffer, to be filled.
    """

    twins: Tensor

    def __init__(self, config: MovementConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = MobileTrunk(len(config.mean), config.width)
        self.fine = Reduction(8, config)
        self.coarse = Reduction(16, config)
        self.hidden = nn.Linear(self.fine.numbers + self.coarse.numbers, _HIDDEN)
        self.shape = nn.Linear(_HIDDEN, _SHAPES)
        self.mesh = nn.Linear(_SHAPES, 2 * config.points)
        self.movements = nn.Linear(_HIDDEN, len(config.movements))
        self.pose = nn.Linear(_HIDDEN, 3)
        self.register_buffer("twins", torch.arange(config.points))

    def forward(self, face: Tensor) -> Motion:
        """Points, movements and pose of faces (B, 3, S, S), normalised.

        Raises InputError: wrong shape.
        """
        size = self.config.size
        check_shape("MovementNet", "face", face, (None, len(self.config.mean), size, size))
        fine, maps = self.trunk.both(face)
        # In bfloat16 a point would be wrong by a hundredth of the distance between the eyes.
        with torch.autocast(face.device.type, enabled=False):
            hidden = F.relu(self.hidden(torch.cat((self.fine(fine), self.coarse(maps)), 1)))
            return Motion(
                self.mesh(self.shape(hidden)).unflatten(1, (-1, 2)),
                self.movements(hidden).sigmoid(),
                self.pose(hidden) * _POSE_UNIT,
            )

    @torch.no_grad()
    def start_mesh(self, points: Tensor) -> None:
        """Let the mesh start as the mean of known meshes, with their main variations as shapes.

        points: (N, P, 2), fractions of the view's side; N of at least 2.
        Raises InputError: wrong shape.
        """
        check_shape("MovementNet.start_mesh", "points", points, (None, self.config.points, 2))
        rows = points.flatten(1).double()
        if len(rows) < 2:
            raise InputError(f"MovementNet.start_mesh: points must be 2 or more, got {len(rows)}")
        mean = rows.mean(0)
        rows = rows - mean
        # Of the (2P, 2P) covariance the last eigenvectors are the main variations.
        spread, shapes = torch.linalg.eigh(rows.t() @ rows / len(rows))
        weight = shapes[:, -_SHAPES:].flip(1) * spread[-_SHAPES:].flip(0).clamp(min=1e-12).sqrt()
        self.mesh.bias.copy_(mean)
        self.mesh.weight[:, : weight.shape[1]].copy_(weight)


def mirror_names(names: tuple[str, ...]) -> list[int]:
    """For each movement the place of its counterpart in a mirrored face.

    A name with Left or Right has the one with the other word, if there is one; others themselves.
    """
    places = {name: place for place, name in enumerate(names)}

    def twin(name: str) -> str:
        if "Left" in name:
            return name.replace("Left", "Right")
        return name.replace("Right", "Left")

    return [places.get(twin(name), place) for place, name in enumerate(names)]


def mirrored(motion: Motion, config: MovementConfig, twins: Tensor) -> Motion:
    """What is to be seen in the mirror images of faces. twins: see MovementNet."""
    points = motion.points[:, twins]
    points = torch.stack((1 - points[..., 0], points[..., 1]), -1)
    movements = motion.movements[:, mirror_names(config.movements)]
    return Motion(points, movements, motion.pose * motion.pose.new_tensor((-1.0, 1.0, -1.0)))
