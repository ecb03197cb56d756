"""Refinement of a detector's landmarks by a small network that sees the aligned face."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.engines.layered_networks import prepare_landmarks
from pcnn.faces.geometry import similarity
from pcnn.faces.views import cut_faces
from pcnn.networks.regions import ViewFormat
from pcnn.results.values import Detection
from pcnn.weights.landmarks import LandmarkWeights

_FACES_AT_ONCE = 256  # bounds the memory of one forward pass


class LandmarkRefiner:
    """The landmark network, ready for inference. Several threads may use it."""

    def __init__(self, weights: LandmarkWeights, device: torch.device) -> None:
        config = weights.network.config
        self._template, self._device = weights.template, device
        self._network = copy.deepcopy(weights.network).to(device)
        self._answer = prepare_landmarks(self._network)
        self._view = ViewFormat(config.size, config.mean, config.std)

    def numbers(self) -> Iterator[Tensor]:
        """All that decides what the network answers."""
        yield torch.tensor(self._template, dtype=torch.float64)
        yield from self._network.state_dict().values()

    @torch.inference_mode()
    def refine(
        self, images: Sequence[NDArray[np.uint8]], found: Sequence[Sequence[Detection]]
    ) -> list[tuple[Detection, ...]]:
        """The faces of each image with better landmarks; boxes and scores stay.

        images: (H, W, 3) uint8 RGB each. found: the faces of each, with landmarks.
        """
        five = [[face.landmarks for face in faces] for faces in found]
        views = cut_faces(images, five, self._template, self._view, self._device)
        if not len(views):
            return [tuple(faces) for faces in found]
        seen = torch.cat([self._answer(chunk) for chunk in views.split(_FACES_AT_ONCE)])
        places = np.asarray(self._template)
        refined = iter(seen.cpu().numpy())
        return [
            tuple(_moved(face, next(refined), similarity(places, face.landmarks)) for face in faces)
            for faces in found
        ]


def _moved(face: Detection, points: NDArray[np.float32], there: NDArray[np.float64]) -> Detection:
    """The face with the points of its view. there: (2, 3), from shares of the view to the image."""
    landmarks = (points @ there[:, :2].T + there[:, 2]).astype(np.float32)
    return Detection(box=face.box, score=face.score, landmarks=landmarks)
