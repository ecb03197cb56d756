"""The graphs of exported files, complete from pixels to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcnn.devices import own_settings
from pcnn.engines.detector import join_levels
from pcnn.engines.portable import Graph, LevelsGraph, ViewsGraph
from pcnn.errors import InputError
from pcnn.networks.anchors import anchor_grid, decode_boxes, decode_landmarks
from pcnn.networks.regions import REGIONS, ViewFormat, normalise
from pcnn.networks.retinaface import STRIDE, RetinaFace
from pcnn.weights.detector import DetectorSettings
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.landmarks import LandmarkWeights


class FileGraph(Graph):
    """A graph for an exported file. It has one uint8 input; its first output has values of 0…1."""

    metadata: Mapping[str, Any]

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """Whether a convolution may use 8 bits. weight: (out, in / groups, height, width)."""
        raise NotImplementedError

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of answers, 0…1, that agree in both outputs; 1 without answers."""
        raise NotImplementedError


class FaceGraph(FileGraph):
    """A complete classifier that starts from the pixels of cut-out faces.

    Input: face (B, C, side, side) uint8, grey or RGB.
    Outputs: scores (B, classes), calibrated, 0…1; embedding (B, D) of unit norm; for a PCNN also
    region_scores (B, 5, classes), in the order of REGIONS.
    side: None takes that of the training faces. The network's own side, with faces cut out so that
        each pixel averages `footprint` pixels (metadata), gives what `Recognizer` answers.
    Raises InputError: a side below 1; the weights use a saliency model, which cannot be exported.
    """

    @own_settings()
    def __init__(self, loaded: ExpressionWeights, side: int | None = None) -> None:
        super().__init__()
        config = loaded.network.config
        if config.saliency is not None:
            raise InputError(
                f"{loaded.path}: uses the saliency model {config.saliency}, which cannot be "
                "exported: export weights without a saliency model"
            )
        self.weights, self._views = loaded, ViewsGraph(loaded.network)
        self.side = min(loaded.native_size, config.size) if side is None else side
        if self.side < 1:
            raise InputError(f"export: a face's side must be at least 1, got {side}")
        self.inputs, self.outputs = ("face",), ("scores", "embedding")
        if loaded.region_temperatures:
            self.outputs = "scores", "embedding", "region_scores"
        self.example = (torch.zeros(2, config.channels, self.side, self.side, dtype=torch.uint8),)
        self.metadata = {
            "classes": config.classes,
            "regions": tuple(loaded.region_temperatures),
            "aligned": loaded.aligned,
            "side": self.side,
            "footprint": self.side / loaded.native_size,
            "mean": config.mean,
            "layout": asdict(config.layout),
            "template": loaded.template,
            **{name: loaded.metadata.get(name) for name in ("trained_on", "licence", "scores")},
        }

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """True for every convolution; see FileGraph."""
        return True

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of faces with the same label."""
        same = expected[0].argmax(1) == found[0].argmax(1)
        return float(same.float().mean())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        loaded, config, (face,) = self.weights, self.weights.network.config, inputs
        face = face.float() / 255
        if self.side != config.size:  # resampling.resample, by an operation of all engines
            size = config.size, config.size
            face = F.interpolate(face, size, mode="bilinear", align_corners=False)
        vectors: list[Tensor] = []

        def forward(views: Sequence[Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
            logits, pooled, *own = self._views(*views)
            vectors.append(pooled[: face.shape[0]])  # without the mirror images
            return logits, dict(zip(REGIONS, own[0].unbind(1), strict=True)) if own else {}

        logits, regions = loaded.answer(forward, loaded.network.cut(normalise(face, config)))
        own = [
            (logits / loaded.region_temperatures[name]).softmax(1)
            for name, logits in regions.items()
        ]
        return (
            (logits / loaded.temperature).softmax(1),
            F.normalize(vectors[0], dim=1),
            *([torch.stack(own, 1)] if own else []),
        )


class LandmarksGraph(FileGraph):
    """A landmark network that starts from the pixels of faces aligned by rough landmarks.

    Input: face (B, 1, side, side) uint8, grey; `template` (metadata) says where the rough
    landmarks lie in it. Output: points (B, 5, 2), x y, fractions of the side.
    """

    @own_settings()
    def __init__(self, loaded: LandmarkWeights) -> None:
        super().__init__()
        config = loaded.network.config
        self.weights, self.side = loaded, config.size
        self._network = loaded.network
        self.inputs, self.outputs = ("face",), ("points",)
        self.example = (torch.zeros(2, len(config.mean), *2 * (config.size,), dtype=torch.uint8),)
        self.metadata = {
            "side": config.size,
            "footprint": 1.0,
            "mean": config.mean,
            "template": loaded.template,
        }

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """False: 8 bits would misplace points; see FileGraph."""
        return False

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of points at most a hundredth of the side apart."""
        return float(((expected[0] - found[0]).norm(dim=2) <= 0.01).float().mean())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Landmarks (B, 5, 2), shares of the side, of faces (B, 1, S, S) uint8."""
        config = self.weights.network.config
        view = ViewFormat(config.size, config.mean, config.std)
        return (self._network(normalise(inputs[0].float() / 255, view)),)


class ImageGraph(FileGraph):
    """A RetinaFace with decoded boxes and landmarks, for images of one size.

    Input: image (B, 3, height, width) uint8 RGB. height, width: multiples of 32.
    Outputs, for every anchor: scores (B, N) of 0…1; boxes (B, N, 4), x1 y1 x2 y2, and landmarks
    (B, N, 5, 2), x y, in pixels. Overlapping boxes are not suppressed.
    Raises InputError: height or width is no multiple of 32.
    """

    @own_settings()
    def __init__(
        self, network: RetinaFace, settings: DetectorSettings, height: int, width: int
    ) -> None:
        super().__init__()
        if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
            raise InputError(
                f"export: a detector's size must be multiples of {STRIDE}, got {width} × {height}"
            )
        self._levels, self._settings = LevelsGraph(network, settings), settings
        anchors = anchor_grid(height, width, min_sizes=settings.min_sizes, steps=settings.steps)
        self._anchors = anchors.clone()  # calls share the grid itself
        self.inputs, self.outputs = ("image",), ("scores", "boxes", "landmarks")
        self.example = (torch.zeros(2, 3, height, width, dtype=torch.uint8),)
        self.metadata = {"confidence": settings.confidence, "nms_iou": settings.nms_iou}

    @staticmethod
    def takes_int8(weight: Sequence[int]) -> bool:
        """True for the pyramid and the contexts, which do most of the work; see FileGraph.

        The backbone's convolutions are depthwise or 1 × 1. In 8 bits they lose one face in 20,
        and they are no faster where memory limits them.
        """
        return weight[1] > 3 and weight[2] > 1

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of boxes that both outputs find at the same place.

        Counted are boxes with a score of at least ½ in either output. Both must have that score,
        and the boxes must overlap by at least 0.8 of their union.
        """
        either = (expected[0] >= 0.5) | (found[0] >= 0.5)
        both = ((expected[0] >= 0.5) & (found[0] >= 0.5))[either]
        one, other = expected[1][either], found[1][either]
        sides = torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])
        shared = sides.clamp(min=0).prod(1)
        areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
        same = both & (shared >= 0.8 * (areas[0] + areas[1] - shared))
        return float(same.float().mean()) if len(same) else 1.0

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for the inputs that the class describes."""
        found = join_levels(self._levels(inputs[0].permute(0, 2, 3, 1).float()))  # (B, N, 15)
        variances = self._settings.variances
        boxes = decode_boxes(found[..., 1:5], self._anchors, variances)
        landmarks = decode_landmarks(found[..., 5:], self._anchors, variances)
        return found[..., 0].sigmoid(), boxes, landmarks.unflatten(2, (5, 2))


class AnchorsGraph(FileGraph):
    """A RetinaFace from images of any size, for those who can place anchors themselves.

    Input: image (B, height, width, 3) uint8 RGB; height, width: multiples of 32.
    Outputs, for every anchor in the order of `anchors.anchor_grid`: scores (B, N) of 0…1, and
    offsets (B, N, 14), as `anchors.decode_boxes` (4) and `decode_landmarks` (10) take them. The
    metadata have all of DetectorSettings.
    """

    def __init__(self, network: RetinaFace, settings: DetectorSettings) -> None:
        super().__init__()
        self._levels = LevelsGraph(network, settings)
        self.inputs, self.outputs = ("image",), ("scores", "offsets")
        self.example = (torch.zeros(2, 4 * STRIDE, 6 * STRIDE, 3, dtype=torch.uint8),)
        self.sizes = self._levels.sizes
        self.metadata = settings.to_metadata()

    takes_int8 = staticmethod(ImageGraph.takes_int8)

    @staticmethod
    def agreement(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
        """The share of anchors that have a score of ½ in both, of those that have it in either."""
        one, other = expected[0] >= 0.5, found[0] >= 0.5
        either = one | other
        return float((one & other).sum() / either.sum()) if either.any() else 1.0

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Scores (B, N) and offsets (B, N, 14) of images (B, H, W, 3) uint8."""
        found = join_levels(self._levels(inputs[0].float()))
        return found[..., 0].sigmoid(), found[..., 1:]
