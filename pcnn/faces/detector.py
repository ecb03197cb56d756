"""Face detection: boxes with scores and landmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn.devices import choose_device, own_settings, upload
from pcnn.engines.folding import fold_batch_norms
from pcnn.engines.select import prepare_detector
from pcnn.errors import WeightsError
from pcnn.faces.geometry import covered_share
from pcnn.faces.interface import check_image, check_min_score
from pcnn.faces.landmarks import LandmarkRefiner
from pcnn.faces.levels import check_min_face, level_sides, network_size, padded_size
from pcnn.faces.orientation import FAINT, look_again
from pcnn.faces.resampling import pixels_tensor, resized
from pcnn.networks.anchors import anchor_grid
from pcnn.networks.retinaface import RetinaFace, architecture_of, load_state
from pcnn.ops import decode_faces
from pcnn.results.values import Detection
from pcnn.weights.detector import DetectorSettings, read_detector
from pcnn.weights.known import DEFAULT_LANDMARKS
from pcnn.weights.landmarks import LandmarkWeights, load_landmarks

# The most pixels of one forward pass on a CPU. With more, the packaged detector's largest maps
# exceed 32 MB, which glibc always requests from the system again.
_PIXELS_PER_PASS = 3 * 640 * 480
# The most pixels of one pass on a GPU, where memory limits them.
_PIXELS_PER_GPU_PASS = 16 * 640 * 640
# A level reports faces of these shares of the trusted side. The ranges overlap, because two levels
# may measure the same face a little differently.
TRUSTED_RANGE = (0.44, 1.12)
# A halved image is searched only if the image before it has a candidate of this score and this
# share of the trusted side (benchmarks/hints.py measures how reliable this is).
_HINT_SCORE, HINT_SIDE = 0.3, 0.7
# Suppression has quadratic cost, so only the best candidates of an image are used.
_MOST_CANDIDATES = 2000


@dataclass(frozen=True, eq=False)
class ScaledImage:
    """An image resized for the network.

    pixels: (h, w, 3) uint8 or float32 RGB. scale: factors of x and y to the original image.
    fine: whether the smallest anchors are used.
    """

    pixels: Tensor
    scale: tuple[float, float]
    fine: bool


class Detector:
    """A RetinaFace with its settings, for finding faces in images.

    network: float32; it is set to eval mode and moved to `device`.
    description: a text about the network. engine: one of engines.ENGINES. precision: see
        select.prepare_detector.
    landmarks: the network that refines the landmarks; None leaves those of `network`. The
        attribute `refines` says whether there is one.
    It has no state between calls, so several threads may use it.
    """

    @own_settings(gradients=True)
    def __init__(  # noqa: PLR0913
        self,
        network: RetinaFace,
        settings: DetectorSettings,
        *,
        device: str | torch.device = "cpu",
        description: str = "RetinaFace",
        engine: str = "torch",
        precision: str = "float32",
        landmarks: LandmarkWeights | None = None,
    ) -> None:
        self.settings = settings
        self.confidence = settings.confidence  # the least score unless another is asked for
        self.device = choose_device(device, "Detector: device")
        self.description = description
        self.network = network.eval().to(
            device=self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._prepared = prepare_detector(self.network, settings, engine, precision)
        self._refiner = None if landmarks is None else LandmarkRefiner(landmarks, self.device)
        self.refines = landmarks is not None
        # Halved images are searched only for faces larger than the smallest anchors.
        least = TRUSTED_RANGE[0] * (settings.trusted_side or 0)
        self._always_fine = 2 * max(settings.min_sizes[0]) > least

    def __repr__(self) -> str:
        return f"<Detector: {self.description}; on {self.device}>"

    @classmethod
    @own_settings(gradients=True)
    def load(  # noqa: PLR0913
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        settings: DetectorSettings | None = None,
        engine: str = "torch",
        precision: str = "float32",
        landmarks: str | Path | None = DEFAULT_LANDMARKS,
    ) -> Detector:
        """Load a detector from this project's safetensors or a published RetinaFace checkpoint.

        path: a name or file, as in `weights.detector.read_detector`. engine, precision: as in
            `Detector`.
        settings: replaces the settings of the file or its family, for example for a checkpoint
            trained with other anchors.
        landmarks: a name or file of the network that refines the landmarks; None for none.
        Raises WeightsError: a file is missing, damaged, or holds another network.
        """
        state, suggested = read_detector(path)
        chosen = settings or suggested
        try:
            network = load_state(state, leak=chosen.leak)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
        refined = "" if landmarks is None else f"; landmarks by {landmarks}"
        description = f"{architecture_of(state)}, {path}{refined}"
        network = fold_batch_norms(network)
        return cls(
            network,
            chosen,
            device=device,
            description=description,
            engine=engine,
            precision=precision,
            landmarks=None if landmarks is None else load_landmarks(landmarks),
        )

    @own_settings()
    def detect(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_score: float | None = None,
        min_face: float | None = None,
    ) -> list[tuple[Detection, ...]]:
        """The faces of each image, best first, in any orientation and light.

        images: (H, W, 3) uint8 RGB each, of any sizes; equal sizes share a forward pass.
        min_score: the least score, 0…1; None means the weights' own.
        min_face: the shorter side of the smallest faces to look for, in the images' pixels, at
            least 1. The search is quicker, and most smaller faces are missed. None looks for
            faces as small as the weights can.
        Upright faces in ordinary light are those of `detect_upright`. If no face is certain, or a
        face seems tilted, the image is searched again (see orientation).
        Returns one tuple for each image, empty without faces. Coordinates are in the image's own
            pixels. No images give an empty list.
        Raises InputError: an image of another shape or type, a number out of range.
        """
        found = self.detect_unrefined(images, min_score=min_score, min_face=min_face)
        return self.refine(images, found)

    def detect_unrefined(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_score: float | None = None,
        min_face: float | None = None,
    ) -> list[tuple[Detection, ...]]:
        """As `detect`, with the landmarks of the search for faces."""
        look = partial(self.detect_upright, min_score=min_score, min_face=min_face)
        faint = partial(self.detect_upright, min_score=FAINT, min_face=min_face)
        return look_again(images, look(images), look, faint)

    def refine(
        self, images: Sequence[NDArray[np.uint8]], found: Sequence[Sequence[Detection]]
    ) -> list[tuple[Detection, ...]]:
        """The faces of each image with refined landmarks, if the detector has a network for that.

        images: (H, W, 3) uint8 RGB each. found: the faces of each, as of detect_upright.
        """
        if self._refiner is None:
            return [tuple(faces) for faces in found]
        return self._refiner.refine(images, found)

    def detect_upright(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_score: float | None = None,
        min_face: float | None = None,
    ) -> list[tuple[Detection, ...]]:
        """The faces of each image, best first, from a single search of the unchanged image.

        Tilted faces may be missing or have wrong landmarks. If the settings have a trusted side,
        larger faces are searched in halved images. Images whose longer side is below the least
        side are enlarged.
        images, min_score, min_face, result and errors: as for `detect`.
        """
        least = self.settings.confidence if min_score is None else min_score
        check_min_score(min_score, "Detector.detect")
        check_min_face(min_face, "Detector.detect")
        for index, image in enumerate(images):
            check_image(index, image)
        levels = [self.levels(image.shape, min_face) for image in images]
        found: list[list[tuple[Detection, ...]]] = [[] for _ in images]
        whole: dict[int, Tensor] = {}  # the first level of each image, from which others are made
        waiting = list(range(len(images)))
        for depth in range(max(map(len, levels), default=0)):
            scaled: list[ScaledImage] = []
            for index in waiting:
                size = network_size(images[index].shape, levels[index][depth])
                source = self.on_device(images[index]) if depth == 0 else whole[index]
                pixels = resized(source, size)
                whole.setdefault(index, pixels)
                height, width = images[index].shape[:2]
                scale = width / size[1], height / size[0]
                scaled.append(ScaledImage(pixels, scale, self._always_fine or depth == 0))
            seen = self.search_once(scaled, least)
            for index, (faces, _) in zip(waiting, seen, strict=True):
                found[index].append(faces)
            waiting = [
                index
                for index, (_, hint) in zip(waiting, seen, strict=True)
                if hint and depth + 1 < len(levels[index])
            ]
        return [
            self._merged(image.shape, sides, parts)
            for image, sides, parts in zip(images, levels, found, strict=True)
        ]

    def numbers(self) -> Iterator[Tensor]:
        """All that decides where faces and landmarks are found, besides the settings."""
        yield from self.network.state_dict().values()
        if self._refiner is not None:
            yield from self._refiner.numbers()

    def levels(self, shape: Sequence[int], min_face: float | None = None) -> list[int]:
        """The longest sides of an image's levels: whole, halved, quartered, …; see `detect`."""
        return level_sides(shape, self.settings, min_face)

    def _merged(
        self, shape: Sequence[int], sides: list[int], found: list[tuple[Detection, ...]]
    ) -> tuple[Detection, ...]:
        """The faces of all levels, each within its trusted sizes. Coarser levels come first."""
        trusted = self.settings.trusted_side
        if trusted is None or len(found) == 1:
            return found[0]
        kept: list[Detection] = []
        for depth in reversed(range(len(found))):
            scale = sides[depth] / max(shape[:2])
            least = 0.0 if depth == 0 else TRUSTED_RANGE[0] * trusted / scale
            most = np.inf if depth == len(found) - 1 else TRUSTED_RANGE[1] * trusted / scale
            fitting = [face for face in found[depth] if least <= shorter_side(face) < most]
            kept += [face for face in fitting if not any(_lies_in(face, other) for other in kept)]
        return tuple(sorted(kept, key=lambda face: -face.score))

    def search_once(
        self, images: Sequence[ScaledImage], least: float
    ) -> list[tuple[tuple[Detection, ...], bool]]:
        """The faces of each image, and whether it may have faces above the trusted side."""
        groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[(*padded_size(image.pixels.shape), image.fine)].append(index)
        results: list[tuple[tuple[Detection, ...], bool]] = [((), False)] * len(images)
        most = _PIXELS_PER_PASS if self.device.type == "cpu" else _PIXELS_PER_GPU_PASS
        for (height, width, fine), indices in groups.items():
            share = max(1, most // (height * width))
            for start in range(0, len(indices), share):
                chosen = indices[start : start + share]
                with torch.inference_mode():
                    pixels = [images[index].pixels for index in chosen]
                    canvas = self._prepared.canvas(pixels, height, width)
                    predictions = self._prepared(canvas, fine=fine)
                    found = self._decoded(predictions, (height, width), fine, least)
                for index, rows in zip(chosen, found.numpy(), strict=True):
                    results[index] = _faces_of(rows, images[index].scale)
        return results

    def _decoded(
        self, predictions: Tensor, size: tuple[int, int], fine: bool, least: float
    ) -> Tensor:
        """The faces in predictions (B, N, 15), as `ops.decode_faces` returns them, on the CPU."""
        settings, skipped = self.settings, 0 if fine else 1
        anchors = anchor_grid(
            *size,
            min_sizes=settings.min_sizes[skipped:],
            steps=settings.steps[skipped:],
            device=predictions.device,
        )
        found = decode_faces(
            predictions,
            anchors,
            variances=settings.variances,
            min_score=least,
            iou=settings.nms_iou,
            most=_MOST_CANDIDATES,
            hint_score=_HINT_SCORE,
            hint_side=HINT_SIDE * (settings.trusted_side or np.inf),
        )
        return found.cpu()

    def on_device(self, image: NDArray[np.uint8]) -> Tensor:
        """An image (H, W, 3) uint8 RGB on the device; float32 on a GPU, for faster resampling."""
        pixels = upload(pixels_tensor(image), self.device)
        return pixels if self.device.type == "cpu" else pixels.float()


def _faces_of(
    rows: NDArray[np.float32], scale: tuple[float, float]
) -> tuple[tuple[Detection, ...], bool]:
    """An image's faces, and whether it may have larger ones, from rows of `ops.decode_faces`."""
    faces = rows[1 : 1 + int(rows[0, 0])]
    places = faces[:, 1:] * np.tile(np.array(scale, np.float32), 7)  # box and landmarks
    found = tuple(
        Detection(box=tuple(own[:4].tolist()), score=score, landmarks=own[4:].reshape(5, 2))
        for own, score in zip(places, faces[:, 0].tolist(), strict=True)
    )
    return found, bool(rows[0, 1])


def shorter_side(face: Detection) -> float:
    """The shorter side of a face's box, in pixels."""
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)


def _lies_in(face: Detection, other: Detection) -> bool:
    """Whether more than half of one face's box is covered by the other's."""
    return covered_share(face.box, other.box) > 0.5
