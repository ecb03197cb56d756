"""The network that refines five landmarks, from a face that is aligned by rough ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcnn.errors import check_shape
from pcnn.networks.trunk import Convolution

# Of each convolution its channels and stride. The input is halved four times.
_LAYERS = ((24, 2), (40, 2), (40, 1), (80, 2), (80, 1), (96, 2))
_HIDDEN = 128
_STRIDE = 16


@dataclass(frozen=True)
class LandmarkConfig:
    """The configuration of a landmark network's input.

    size: the side of the square face view, in pixels. mean, std: normalisation of its grey
    values 0…1.
    """

    size: int = 64
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)


class LandmarkNet(nn.Module):
    """Six convolutions and a hidden layer over their whole map.

    The map is not averaged, because places would be lost. The first answer, before training, is
    `start` for every face.
    """

    def __init__(self, config: LandmarkConfig) -> None:
        super().__init__()
        self.config = config
        channels = len(config.mean)
        layers: list[nn.Module] = []
        for out, stride in _LAYERS:
            layers += [Convolution(channels, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
        self.trunk = nn.Sequential(*layers)
        side = -(-config.size // _STRIDE)
        self.hidden = nn.Linear(channels * side * side, _HIDDEN)
        self.points = nn.Linear(_HIDDEN, 10)

    def forward(self, face: Tensor) -> Tensor:
        """Landmarks (B, 5, 2) of faces (B, 1, S, S), normalised; fractions of the view's side.

        Raises InputError: wrong shape.
        """
        size = self.config.size
        check_shape("LandmarkNet", "face", face, (None, len(self.config.mean), size, size))
        maps = self.trunk(face)
        # In bfloat16 a point would be wrong by a hundredth of the distance between the eyes.
        with torch.autocast(maps.device.type, enabled=False):
            hidden = F.relu(self.hidden(maps.float().flatten(1)))
            points: Tensor = self.points(hidden).unflatten(1, (5, 2))
            return points

    @torch.no_grad()
    def start(self, points: Tensor) -> None:
        """Let the answers start at `points` (5, 2) for every face."""
        self.points.weight.mul_(0.1)
        self.points.bias.copy_(points.flatten())
