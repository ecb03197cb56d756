"""Search for faces near known places: in small cut-outs of an image instead of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pcnn.devices import own_settings
from pcnn.faces.detector import Detector
from pcnn.faces.levels import network_size, padded_size
from pcnn.faces.resampling import pixels_tensor, resized
from pcnn.faces.tiles import Tile, at_inner_edge
from pcnn.networks.boxes import nms
from pcnn.results.values import Detection

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels

# The detector sees a cut-out with this longer side, in pixels; smaller ones are not enlarged.
_SIDE = 160
# The side of a cut-out, in longer sides of the face. A face can move by half of its side.
_ROOM = 2.0
# A face nearer than this to an inner edge of a cut-out, in its pixels, may be cut off.
_EDGE = 1.0
# Cut-outs are searched if they have at most this share of the pixels of a search of the whole.
_MOST_PIXELS = 0.5


def is_worth_cutting(
    detector: Detector, shape: Sequence[int], count: int, min_face: float | None = None
) -> bool:
    """Whether `count` cut-outs of an image of this shape cost clearly less than the whole.

    min_face: see Detector.detect, for the search of the whole.
    """
    size = network_size(shape, detector.levels(shape, min_face)[0])
    return count * _SIDE**2 <= _MOST_PIXELS * float(np.prod(padded_size(size)))


@own_settings()
def search_near(
    detector: Detector,
    image: NDArray[np.uint8],
    boxes: Sequence[Box],
    *,
    min_score: float | None = None,
) -> list[Detection]:
    """The faces of an image in the surroundings of boxes, best first.

    image: (H, W, 3) uint8 RGB. boxes: where faces may be; those whose middle is outside of the
        image are left out. The surroundings have twice the side of the box, at least 160 pixels.
    min_score: the least score, 0…1; None means the weights' own.
    A face at the edge of its surroundings is not reported, unless that is the image's own edge.
    Raises InputError: see Detector.detect.
    """
    height, width = image.shape[:2]
    places = [_place(box, width, height) for box in boxes if _inside(box, width, height)]
    looks = [_pixels(image[top:bottom, left:right]) for left, top, right, bottom in places]
    found: list[Detection] = []
    for place, look, faces in zip(
        places, looks, detector.detect_unrefined(looks, min_score=min_score), strict=True
    ):
        scale = (place[2] - place[0]) / look.shape[1], (place[3] - place[1]) / look.shape[0]
        for face in faces:
            moved = _moved(face, place[:2], scale)
            left, top, right, bottom = place
            tile, box = Tile(top, bottom, left, right), np.array([moved.box])
            if not at_inner_edge(box, tile, (height, width), _EDGE * max(scale)).any():
                found.append(moved)
    distinct = [found[index] for index in _distinct(found, detector)]
    return list(detector.refine([image], [distinct])[0])


def _distinct(found: Sequence[Detection], detector: Detector) -> list[int]:
    """The indices of the faces, each once, best first."""
    if not found:
        return []
    kept = nms(
        torch.tensor([face.box for face in found], dtype=torch.float32),
        torch.tensor([face.score for face in found], dtype=torch.float32),
        iou=detector.settings.nms_iou,
    )
    return [int(index) for index in kept]


def _inside(box: Box, width: int, height: int) -> bool:
    left, top, right, bottom = box
    return 0 < left + right < 2 * width and 0 < top + bottom < 2 * height


def _place(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The edges of the square cut-out about a box, moved into the image; clipped if it is less."""
    left, top, right, bottom = box
    side = max(_SIDE, round(_ROOM * max(right - left, bottom - top)))
    x = max(0, min(round((left + right - side) / 2), width - side))
    y = max(0, min(round((top + bottom - side) / 2), height - side))
    return x, y, min(x + side, width), min(y + side, height)


def _pixels(cut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A cut-out reduced to the detector's size."""
    size = network_size(cut.shape, min(_SIDE, max(cut.shape)))
    return np.ascontiguousarray(resized(pixels_tensor(cut), size).numpy())


def _moved(face: Detection, corner: tuple[int, int], scale: tuple[float, float]) -> Detection:
    """A face of a cut-out in the image's pixels. corner: x, y of the cut-out in the image."""
    (x, y), (across, down) = corner, scale
    left, top, right, bottom = face.box
    return Detection(
        box=(x + across * left, y + down * top, x + across * right, y + down * bottom),
        score=face.score,
        landmarks=(face.landmarks * scale + corner).astype(np.float32),
    )
