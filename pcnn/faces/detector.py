"""Face detection: boxes with scores and landmarks."""

from __future__ import annotations

import math
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
from pcnn.faces.interface import check_image, check_min_score
from pcnn.faces.landmarks import LandmarkRefiner
from pcnn.faces.levels import (
    TRUSTED_RANGE,
    check_min_face,
    finer_side,
    level_sides,
    merged,
    network_size,
    padded_size,
    reduced,
)
from pcnn.faces.orientation import FAINT, look_again
from pcnn.faces.resampling import pixels_tensor, resized
from pcnn.faces.tiles import Tile, joined, tiles_of
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
# A halved image is searched only if the image before it has a candidate of this score and this
# share of the trusted side (benchmarks/hints.py measures how reliable this is).
_HINT_SCORE, HINT_SIDE = 0.3, 0.7
# The common part of neighbouring tiles, in sides of the largest trusted face: it is found best
# with something around it.
_TILE_OVERLAP = 1.25
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
        least, most = (share * (settings.trusted_side or 0) for share in TRUSTED_RANGE)
        self._always_fine = 2 * max(settings.min_sizes[0]) > least
        # Of large images. Larger faces than trusted ones are found at another level.
        self._overlap = math.ceil(_TILE_OVERLAP * most) if most else None

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
            least 1. Most smaller faces are missed. Large values are quicker, small ones slower
            in large images. None looks for all faces in images whose longer side has up to 960
            pixels, and in larger ones for those of a sixtieth of that side; if it finds none or
            still smaller ones, it looks closer. Detectors without a trusted side, such as
            published checkpoints, see all images within their `max_side`.
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
        found = self.detect_upright(images, min_score=min_score, min_face=min_face)
        # Further searches are as fine as the first level of this one.
        look = partial(self._search, min_score=min_score, min_face=min_face)
        faint = partial(self._search, min_score=FAINT, min_face=min_face)
        small = partial(reduced, settings=self.settings) if min_face is None else np.asarray
        return look_again(images, found, look, faint, small)

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
        side are enlarged. Large images are reduced, and searched less reduced if that shows no
        face or very small ones, unless min_face is given.
        images, min_score, min_face, result and errors: as for `detect`.
        """
        return self._search(images, min_score=min_score, min_face=min_face, finer=min_face is None)

    def _search(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        min_score: float | None,
        min_face: float | None,
        finer: bool = False,
    ) -> list[tuple[Detection, ...]]:
        """As `detect_upright`. finer: whether large images may be searched less reduced."""
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
                source = self.on_device(images[index]) if depth == 0 else whole[index]
                scaled.append(self._scaled(images[index], source, levels[index][depth], depth == 0))
                whole.setdefault(index, scaled[-1].pixels)
            seen = self.search_once(scaled, least)
            for index, (faces, _) in zip(waiting, seen, strict=True):
                found[index].append(faces)
            waiting = [
                index
                for index, (_, hint) in zip(waiting, seen, strict=True)
                if hint and depth + 1 < len(levels[index])
            ]
        whole.clear()
        if finer:
            for image, sides, parts in zip(images, levels, found, strict=True):
                while side := finer_side(image.shape, sides[0], parts[0], self.settings):
                    one = self._scaled(image, self.on_device(image), side, True)
                    sides.insert(0, side)
                    parts.insert(0, self.search_once([one], least)[0][0])
        return [
            merged(image.shape, sides, parts, self.settings)
            for image, sides, parts in zip(images, levels, found, strict=True)
        ]

    def _scaled(
        self, image: NDArray[np.uint8], source: Tensor, side: int, finest: bool
    ) -> ScaledImage:
        """An image with this longer side, made of `source`, which shows the same."""
        size = network_size(image.shape, side)
        scale = image.shape[1] / size[1], image.shape[0] / size[0]
        return ScaledImage(resized(source, size), scale, self._always_fine or finest)

    def numbers(self) -> Iterator[Tensor]:
        """All that decides where faces and landmarks are found, besides the settings."""
        yield from self.network.state_dict().values()
        if self._refiner is not None:
            yield from self._refiner.numbers()

    def levels(self, shape: Sequence[int], min_face: float | None = None) -> list[int]:
        """The longest sides of an image's levels: whole, halved, quartered, …; see `detect`."""
        return level_sides(shape, self.settings, min_face)

    def search_once(
        self, images: Sequence[ScaledImage], least: float
    ) -> list[tuple[tuple[Detection, ...], bool]]:
        """The faces of each image, and whether it may have faces above the trusted side."""
        tiles = [tiles_of(image.pixels.shape, self._overlap) for image in images]
        groups: dict[tuple[int, int, bool], list[tuple[int, Tile]]] = defaultdict(list)
        for index, image in enumerate(images):
            for tile in tiles[index]:
                size = tile.bottom - tile.top, tile.right - tile.left
                groups[(*padded_size(size), image.fine)].append((index, tile))
        results: dict[tuple[int, Tile], NDArray[np.float32]] = {}
        most = _PIXELS_PER_PASS if self.device.type == "cpu" else _PIXELS_PER_GPU_PASS
        for (height, width, fine), indices in groups.items():
            share = max(1, most // (height * width))
            for start in range(0, len(indices), share):
                chosen = indices[start : start + share]
                with torch.inference_mode():
                    pixels = [
                        images[index].pixels[tile.top : tile.bottom, tile.left : tile.right]
                        for index, tile in chosen
                    ]
                    canvas = self._prepared.canvas(pixels, height, width)
                    predictions = self._prepared(canvas, fine=fine)
                    found = self._decoded(predictions, (height, width), fine, least)
                results.update(zip(chosen, found.numpy(), strict=True))
        return [
            _faces_of(
                joined([results[index, tile] for tile in own], own, self.settings.nms_iou),
                images[index].scale,
            )
            for index, own in enumerate(tiles)
        ]

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
