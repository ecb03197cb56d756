"""Reading of what located faces do: movements, pose and mesh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pcnn.engines.layered_networks import prepare_movements
from pcnn.faces.geometry import similarity
from pcnn.faces.resampling import to_pictures
from pcnn.faces.views import cut_faces
from pcnn.networks.movements import Motion, mirrored
from pcnn.networks.regions import ViewFormat
from pcnn.recognition.batches import Picture
from pcnn.results.movements import FaceMotion, Pose
from pcnn.results.values import Detection
from pcnn.weights.movements import load_movements

_FACES_AT_ONCE = 64  # bounds the memory of one forward pass


class MovementReader:
    """The movement network, ready for inference. Several threads may use it.

    weights: a name or path of movement weights.
    Raises WeightsError: see load_movements.
    """

    def __init__(self, weights: str | Path, device: torch.device) -> None:
        loaded = load_movements(weights)
        self._loaded, self._device = loaded, device
        config = loaded.network.config
        self._network = loaded.network.to(device)
        self._answer = prepare_movements(self._network)
        self._view = ViewFormat(config.size, config.mean, config.std)

    @property
    def names(self) -> tuple[str, ...]:
        """The movements' names, in the order of every face's."""
        return self._loaded.network.config.movements

    @torch.inference_mode()
    def read(
        self, pictures: Sequence[Picture], found: Sequence[Sequence[Detection]]
    ) -> list[FaceMotion]:
        """The movements of all faces of all pictures, in order.

        found: the faces of each picture, with their landmarks.
        """
        size, template = self._view.size, self._loaded.template
        five = [[face.landmarks for face in faces] for faces in found]
        pixels = [picture.pixels for picture in pictures]
        views = cut_faces(pixels, five, template, self._view, self._device)
        if not len(views):
            return []
        answers = [self.answer(chunk) for chunk in views.split(_FACES_AT_ONCE)]
        points, movements, poses = (
            torch.cat(own).cpu().numpy() for own in zip(*answers, strict=True)
        )
        places = np.asarray(template) * size
        maps = [similarity(places, landmarks) for faces in five for landmarks in faces]
        return [
            FaceMotion(
                dict(zip(self.names, movements[i].tolist(), strict=True)),
                _pose(poses[i].tolist(), there),
                (size * points[i] @ there[:, :2].T + there[:, 2]).astype(np.float32),
            )
            for i, there in enumerate(maps)
        ]

    def answer(self, views: torch.Tensor) -> Motion:
        """What is seen in views (B, 3, S, S), with mirror images if the file asks for them."""
        seen = self._answer(views)
        if not self._loaded.mirror:
            return seen
        config, twins = self._network.config, self._network.twins
        other = mirrored(self._answer(views.flip(3)), config, twins)
        return Motion(*((one + two) / 2 for one, two in zip(seen, other, strict=True)))


def dataset_movements(
    reader: MovementReader, faces: torch.Tensor, landmarks: np.ndarray
) -> list[FaceMotion]:
    """The movements of a data set's faces.

    faces: (N, H, W) or (N, H, W, 3) uint8. landmarks: (N, 5, 2), finite.
    """
    found: list[FaceMotion] = []
    for start in range(0, len(faces), _FACES_AT_ONCE):
        chunk = faces[start : start + _FACES_AT_ONCE]
        pictures = [Picture(own, False, "face") for own in to_pictures(chunk)]
        points = landmarks[start : start + _FACES_AT_ONCE]
        places = [
            [Detection((0.0, 0.0, *own.pixels.shape[1::-1]), 1.0, five)]
            for own, five in zip(pictures, points, strict=True)
        ]
        found += reader.read(pictures, places)
    return found


def _pose(angles: Sequence[float], there: np.ndarray) -> Pose:
    """The pose in the picture. there: (2, 3), from the view to the picture."""
    yaw, pitch, roll = angles
    roll += math.degrees(math.atan2(there[1, 0], there[0, 0]))
    return Pose(yaw, pitch, (roll + 180) % 360 - 180)
