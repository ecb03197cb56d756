"""Find faces: images in, boxes with scores and landmarks out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pcnn.anchors import anchor_grid, decode_boxes, decode_landmarks, nms
from pcnn.checkpoints import DetectorSettings, read_detector
from pcnn.errors import InputError, WeightsError
from pcnn.results import Detection
from pcnn.retinaface import RetinaFace, architecture_of, fold_batch_norms, load_state

# The network halves its input five times.
_STRIDE = 32
# Pixels that share one forward pass; more would cost memory and gain no time.
_PIXELS_PER_PASS = 16 * 640 * 640
# A level reports faces of these shares of the trusted side: they overlap, since two levels may
# measure the same face a little differently.
_RANGE = (0.44, 1.12)
# Images are halved until a face that fills one, about 0.8 of its side wide, is within the range.
_ENOUGH = 1.25
# Suppression is quadratic: only the best candidates of an image enter it.
_MOST_CANDIDATES = 2000
# An image, and the height and width to scale it to.
_Sized: TypeAlias = "tuple[NDArray[np.uint8], tuple[int, int]]"


class Detector:
    """A RetinaFace with all it needs; finds faces in images.

    network: float32; put in eval mode and moved to `device`.
    description: of the network, for people.
    Holds no state between calls: one detector may serve several threads.
    """

    def __init__(
        self,
        network: RetinaFace,
        settings: DetectorSettings,
        *,
        device: str | torch.device = "cpu",
        description: str = "RetinaFace",
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        self.description = description
        self.network = network.eval().to(
            device=self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        settings: DetectorSettings | None = None,
    ) -> Detector:
        """A detector from this project's safetensors or a published RetinaFace checkpoint.

        path: a name or file, as in `checkpoints.read_detector`.
        settings: overrules what the file or its family says, as for a checkpoint that somebody
            trained with other anchors.
        Raises WeightsError: missing, damaged, or not a RetinaFace; says what is wrong.
        """
        state, suggested = read_detector(path)
        chosen = settings or suggested
        try:
            network = load_state(state, leak=chosen.leak)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
        description = f"{architecture_of(state)}, {path}"
        return cls(fold_batch_norms(network), chosen, device=device, description=description)

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> list[tuple[Detection, ...]]:
        """Faces of each image, best first.

        Where the settings name a trusted side, larger faces are looked for in halved images.
        images: (H, W, 3) uint8 RGB each, of any sizes; those alike share a forward pass.
        min_score: least score reported, 0…1; None takes the weights' own.
        Returns one tuple for each image, empty where it has no face; coordinates in the image's
            own pixels. No images give an empty list.
        Raises InputError: an image of another shape or type, a score out of range.
        """
        least = self.settings.confidence if min_score is None else min_score
        if not 0 <= least <= 1:
            raise InputError(f"Detector.detect: min_score must be 0…1, got {min_score}")
        for index, image in enumerate(images):
            _check_image(index, image)
        levels = [self._levels(image.shape) for image in images]
        found: list[list[tuple[Detection, ...]]] = [[] for _ in images]
        for depth in range(max((len(sides) for sides in levels), default=0)):
            chosen = [index for index, sides in enumerate(levels) if depth < len(sides)]
            limits = [levels[index][depth] for index in chosen]
            faces = self._detect_once([images[index] for index in chosen], limits, least)
            for index, one in zip(chosen, faces, strict=True):
                found[index].append(one)
        return [
            self._merged(image.shape, sides, parts)
            for image, sides, parts in zip(images, levels, found, strict=True)
        ]

    def _levels(self, shape: Sequence[int]) -> list[int]:
        """Longest sides at which the network sees an image: whole, halved, quartered, …"""
        sides = [min(self.settings.max_side, max(shape[:2]))]
        while self.settings.trusted_side and sides[-1] > _ENOUGH * self.settings.trusted_side:
            sides.append(sides[-1] // 2)
        return sides

    def _merged(
        self, shape: Sequence[int], sides: list[int], found: list[tuple[Detection, ...]]
    ) -> tuple[Detection, ...]:
        """Each level's faces of the sizes it is trusted with, the coarser level's word first."""
        trusted = self.settings.trusted_side
        if trusted is None or len(found) == 1:
            return found[0]
        kept: list[Detection] = []
        for depth in reversed(range(len(found))):
            scale = sides[depth] / max(shape[:2])
            least = 0.0 if depth == 0 else _RANGE[0] * trusted / scale
            most = np.inf if depth == len(found) - 1 else _RANGE[1] * trusted / scale
            fitting = [face for face in found[depth] if least <= _shorter_side(face) < most]
            kept += [face for face in fitting if not any(_lies_in(face, other) for other in kept)]
        return tuple(sorted(kept, key=lambda face: -face.score))

    def _detect_once(
        self, images: list[NDArray[np.uint8]], limits: list[int], least: float
    ) -> list[tuple[Detection, ...]]:
        """Faces of images scaled so that their longest sides keep to the limits."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        sizes = [
            _network_size(image.shape, limit) for image, limit in zip(images, limits, strict=True)
        ]
        for index, size in enumerate(sizes):
            groups[_padded(size)].append(index)
        results: list[tuple[Detection, ...]] = [()] * len(images)
        for padded, indices in groups.items():
            share = max(1, _PIXELS_PER_PASS // (padded[0] * padded[1]))
            for start in range(0, len(indices), share):
                chosen = indices[start : start + share]
                batch = [(images[index], sizes[index]) for index in chosen]
                found = self._detect_alike(batch, padded, least)
                for index, faces in zip(chosen, found, strict=True):
                    results[index] = faces
        return results

    @torch.inference_mode()
    def _detect_alike(
        self, images: list[_Sized], padded: tuple[int, int], least: float
    ) -> list[tuple[Detection, ...]]:
        """Faces of images, each with the size to scale it to, that fill to the same one."""
        batch = torch.zeros(len(images), 3, *padded, device=self.device)
        for canvas, (image, size) in zip(batch, images, strict=True):
            pixels = self._prepare(image, size)
            canvas[:, : pixels.shape[1], : pixels.shape[2]] = pixels
        logits, boxes, landmarks = self.network(batch.contiguous(memory_format=torch.channels_last))
        scores = logits.softmax(dim=-1)[..., 1]
        return [
            self._faces(sized, scores[row], boxes[row], landmarks[row], padded, least)
            for row, sized in enumerate(images)
        ]

    def _prepare(self, image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
        """(H, W, 3) uint8 RGB → (3, h, w) float32 as the network takes it, not yet padded."""
        # A copy: PyTorch warns of read-only arrays and refuses negative strides.
        pixels = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None]
        if self.device.type != "cpu":  # where bytes are resampled several times as fast
            pixels = pixels.float()
        if size != image.shape[:2]:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return normalise(pixels.float(), self.settings)[0]

    def _faces(  # noqa: PLR0913, PLR0917 - private: one row of each of the network's outputs
        self,
        sized: _Sized,
        scores: Tensor,
        boxes: Tensor,
        landmarks: Tensor,
        padded: tuple[int, int],
        least: float,
    ) -> tuple[Detection, ...]:
        best = torch.nonzero(scores >= least)[:, 0]
        if len(best) > _MOST_CANDIDATES:
            best = best[scores[best].topk(_MOST_CANDIDATES).indices]
        anchors = anchor_grid(
            *padded, min_sizes=self.settings.min_sizes, steps=self.settings.steps
        ).to(self.device)[best]
        corners = decode_boxes(boxes[best], anchors, self.settings.variances)
        points = decode_landmarks(landmarks[best], anchors, self.settings.variances)
        kept = nms(corners, scores[best], iou=self.settings.nms_iou)
        image, (height, width) = sized
        scale = corners.new_tensor([image.shape[1] / width, image.shape[0] / height])
        corners, points = corners[kept] * scale.repeat(2), points[kept] * scale.repeat(5)
        return tuple(
            Detection(box=tuple(box), score=score, landmarks=point.reshape(5, 2))
            for box, score, point in zip(
                corners.tolist(), scores[best][kept].tolist(), points.cpu().numpy(), strict=True
            )
        )


def normalise(images: Tensor, settings: DetectorSettings) -> Tensor:
    """What the network takes for RGB images.

    images: (B, 3, H, W) float32, RGB, 0…255.
    Returns the same shape, channels in the settings' order, mean and deviation taken out.
    """
    if settings.channels == "bgr":
        images = images.flip(1)
    mean, std = images.new_tensor(settings.mean), images.new_tensor(settings.std)
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def _shorter_side(face: Detection) -> float:
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)


def _lies_in(face: Detection, other: Detection) -> bool:
    """Whether more than half of one face's box is covered by the other's."""
    one, two = np.array(face.box), np.array(other.box)
    shared = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    area = float(np.prod(one[2:] - one[:2]))
    return bool(shared.min() > 0 and np.prod(shared) > area / 2)


def _network_size(shape: Sequence[int], max_side: int) -> tuple[int, int]:
    """Height and width at which the network sees an image of this shape."""
    height, width = shape[:2]
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _padded(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // _STRIDE) * _STRIDE, -(-size[1] // _STRIDE) * _STRIDE


def _check_image(index: int, image: NDArray[np.uint8]) -> None:
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.ndim != 3
        or image.shape[2] != 3
        or image.size == 0
    ):
        got = (
            f"{image.shape} {image.dtype}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise InputError(
            f"Detector.detect: images[{index}] must be (H, W, 3) uint8 RGB with at least one "
            f"pixel, got {got}"
        )
