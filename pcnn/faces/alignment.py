"""Alignment of cut-out faces by their landmarks, as in training.

Data sets and users cut out faces in different ways. A network trained on aligned faces
(`ExpressionWeights.aligned`) needs cut-out faces aligned, too. Faces that the detector finds in
photographs are always aligned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from pcnn.arrays import read_arrays
from pcnn.devices import own_settings
from pcnn.disk import cache_folder, keep_if_possible
from pcnn.errors import InputError
from pcnn.faces.detector import Detector
from pcnn.faces.geometry import face_transforms, picture_transforms
from pcnn.faces.interface import FaceDetector
from pcnn.faces.resampling import to_pictures
from pcnn.networks.regions import ViewFormat
from pcnn.ops.reference import taps
from pcnn.results.values import Detection
from pcnn.terminal import track
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.known import DEFAULT_DETECTOR

# The detector expects photographs. So a face is resized to this side and gets a border of its edge
# pixels, both in pixels.
_SIDE, _BORDER = 96, 48
# The largest distance between the middles of face and picture, as a share of the side. The best
# such face is used.
_OFF_CENTRE = 0.35
# The least spread of landmarks, as a share of the side. Some detectors give no real landmarks.
_LEAST_SPREAD = 0.05
_FACES_AT_ONCE = 64
# The usual places of landmarks: their means in FER+ train, as shares of the side.
_PLACES = ((0.326, 0.379), (0.666, 0.374), (0.502, 0.592), (0.365, 0.748), (0.636, 0.744))

_Picture: TypeAlias = NDArray[np.uint8]
_Points: TypeAlias = NDArray[np.float32]
_USUAL = Detection(
    box=(_BORDER, _BORDER, _BORDER + _SIDE, _BORDER + _SIDE),
    score=0.0,
    landmarks=np.array(_PLACES, np.float32) * _SIDE + _BORDER,
)


def find_landmarks(pictures: Sequence[_Picture], detector: FaceDetector) -> list[_Points | None]:
    """The landmarks of each cut-out face; None if no face is found with enough confidence.

    pictures: (H, W, 3) uint8 RGB, each a face. detector: its own least score is used. If it
        refines landmarks, it does so from their usual places in pictures where it finds no face.
    Returns arrays (5, 2), continuous coordinates of the picture.
    """
    bordered = [_with_border(picture) for picture in pictures]
    faces: Sequence[Detection | None]
    if isinstance(detector, Detector):
        # Such faces are upright, and the packaged weights were trained with a single detection.
        faces = [_in_the_middle(found) for found in detector.detect_upright(bordered)]
        if detector.refines:
            rough = [[_USUAL if face is None else face] for face in faces]
            faces = [face for (face,) in detector.refine(bordered, rough)]
    else:
        faces = [_in_the_middle(found) for found in detector.detect(bordered)]
    return [
        None if face is None else _without_border(face.landmarks, picture)
        for face, picture in zip(faces, pictures, strict=True)
    ]


@own_settings()
def crop_transforms(
    pictures: Sequence[_Picture],
    template: ArrayLike,
    config: ViewFormat,
    detector: FaceDetector | None,
) -> list[NDArray[np.float32]]:
    """The transforms for the views of cut-out faces, (1, 6, 2, 3) for each.

    pictures: as for find_landmarks. template: see geometry.face_transforms.
    detector: finds the landmarks for the alignment. Without a detector or landmarks, the whole
        picture is resized to a square.
    """
    landmarks: list[_Points | None] = [None] * len(pictures)
    if detector is not None:
        landmarks = find_landmarks(pictures, detector)
    return [
        _transforms(picture, points, template, config)
        for picture, points in zip(pictures, landmarks, strict=True)
    ]


def _transforms(
    picture: _Picture, points: _Points | None, template: ArrayLike, config: ViewFormat
) -> NDArray[np.float32]:
    """The transforms of a cut-out face, (1, 6, 2, 3). points: its landmarks, if any."""
    size, layout = config.size, config.layout
    if points is None or not np.isfinite(points).all():
        return picture_transforms(picture.shape[1], picture.shape[0], size, layout)
    return face_transforms([points], template, size, layout)


@own_settings()
def dataset_landmarks(faces: Tensor, detector: FaceDetector) -> _Points:
    """The landmarks of a data set's faces, (N, 5, 2); NaN where none are found.

    faces: see align_faces.
    Results are kept in the cache folder, for each data set and detector. Results of a custom
    detector object are not kept. A damaged file of the cache is replaced. If the cache cannot be
    written, a warning says so.
    """
    kept = landmarks_file(faces, detector)
    known = None if kept is None else _kept_landmarks(kept, len(faces))
    if known is not None:
        return known
    places = np.full((len(faces), 5, 2), np.nan, np.float32)
    at = 0
    for chunk in track(faces.split(_FACES_AT_ONCE), "finding landmarks"):
        for points in find_landmarks(to_pictures(chunk), detector):
            if points is not None:
                places[at] = points
            at += 1
    if kept is not None:
        keep_if_possible(kept, lambda path: np.save(path, places))
    return places


def _kept_landmarks(path: Path, count: int) -> _Points | None:
    """The landmarks of `count` faces in a file of the cache; None without a sound one."""
    try:
        found = read_arrays(path).get("")
    except InputError:
        return None
    if found is None or found.dtype != np.float32 or found.shape != (count, 5, 2):
        return None
    return found


@own_settings()
def measure_template(faces: Tensor, detector: FaceDetector) -> list[list[float]]:
    """The mean places of the landmarks of a data set's faces.

    faces: see align_faces. Returns five (x, y), fractions of the face's side, averaged over the
    faces with landmarks.
    Raises InputError: the detector finds no face.
    """
    points = dataset_landmarks(faces, detector)
    found = np.isfinite(points).all((1, 2))
    if not found.any():
        raise InputError("measure_template: the detector found no face in the training faces")
    mean = points[found].mean(0) / np.array(faces.shape[2:0:-1])
    return [[float(x), float(y)] for x, y in mean]


def landmarks_file(faces: Tensor, detector: FaceDetector) -> Path | None:
    """The cache file for the landmarks of these faces by this detector; None without one."""
    if not isinstance(detector, Detector):
        return None
    digest = detector_digest(detector)
    digest.update(str(tuple(faces.shape)).encode())
    digest.update(faces.cpu().contiguous().numpy().tobytes())
    return cache_folder() / "landmarks" / f"{digest.hexdigest()[:32]}.npy"


def detector_digest(detector: Detector) -> hashlib._Hash:
    """A SHA-256 of a detector's settings and weights, to which more may be added."""
    digest = hashlib.sha256(repr(detector.settings).encode())
    for value in detector.numbers():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest


def transforms_finder(
    weights: ExpressionWeights, detector: str | Path | None = None, *, faces: bool = False
) -> Callable[[_Picture], NDArray[np.float32]]:
    """A function from a picture (H, W, 3) to the transforms of its faces' views, (F, 6, 2, 3).

    detector: a name or path for Detector.load; None for the default. It is loaded only if needed.
    faces: True if each picture is a cut-out face. It is aligned if the weights require it.
    """
    config, template = weights.network.config, weights.template
    path = detector or DEFAULT_DETECTOR
    if faces:
        aligner = crop_detector(weights, path)
        return lambda picture: crop_transforms([picture], template, config, aligner)[0]
    finder = Detector.load(path, device=next(weights.network.parameters()).device)

    def transforms(picture: _Picture) -> NDArray[np.float32]:
        points = [face.landmarks for face in finder.detect([picture])[0]]
        return face_transforms(points, template, config.size, config.layout)

    return transforms


def suited_faces(
    weights: ExpressionWeights,
    faces: Tensor,
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
) -> tuple[Tensor, int]:
    """A data set's faces in the form of the weights' training faces, and their `native_size`.

    faces: see align_faces. detector: an object, or a name or path for Detector.load, loaded only
        if needed.
    Returns the faces, aligned if the weights require it, and the side in pixels that corresponds
    to the detail for the network, called `native_size` elsewhere.
    """
    finder = crop_detector(weights, detector)
    if finder is None:
        return faces, weights.native_size
    size = weights.network.config.size
    return align_faces(faces, weights.template, size, weights.native_size, finder), size


def crop_detector(
    weights: ExpressionWeights, detector: FaceDetector | str | Path
) -> FaceDetector | None:
    """The detector that aligns cut-out faces, loaded if it is a name or path.

    None if the weights do not require alignment.
    """
    if not weights.aligned:
        return None
    if isinstance(detector, (str, Path)):
        device = next(weights.network.parameters()).device
        return Detector.load(detector, device=device)
    return detector


@own_settings()
def align_faces(
    faces: Tensor,
    template: ArrayLike,
    size: int,
    native_size: int,
    landmarks: FaceDetector | _Points,
) -> Tensor:
    """Align a data set's faces. Faces without landmarks are only resized.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8. template: see geometry.face_transforms.
    size: the side of the result in pixels. native_size: see views.cut_views.
    landmarks: (N, 5, 2), NaN for faces without; or a detector that finds them.
    Shows its progress on stderr, if that is a terminal.
    Returns (N, size, size) or (N, size, size, 3) uint8 on the CPU, in whole levels; without faces
    an empty tensor.
    """
    grey = faces.dim() == 3
    levels = ViewFormat.levels(size, 1 if grey else 3)
    aligned = []
    if not isinstance(landmarks, np.ndarray):
        landmarks = dataset_landmarks(faces, landmarks)
    remaining = iter(landmarks)
    for chunk in track(faces.split(_FACES_AT_ONCE), "aligning"):
        transforms = [
            _transforms(picture, points, template, levels)
            for picture, points in zip(to_pictures(chunk), remaining, strict=False)
        ]
        maps = torch.from_numpy(np.concatenate(transforms)[:, 0])  # (B, 2, 3)
        views = _cut_alike(chunk, maps, size, size / native_size)
        rounded = views.round().clamp(0, 255).to(torch.uint8)  # (B, C, size, size)
        aligned.append(rounded[:, 0] if grey else rounded.permute(0, 2, 3, 1))
    return torch.cat(aligned)


def _cut_alike(faces: Tensor, maps: Tensor, size: int, footprint: float) -> Tensor:
    """The result of ops.crop_regions for faces of one size, batched by their number of taps.

    faces: (B, H, W) or (B, H, W, 3) uint8. maps: (B, 2, 3), from pixels of the view to the face's.
    footprint: see ops.crop_regions. Returns (B, C, size, size) float32, 0…255, on the CPU.
    """
    planes = (faces[:, None] if faces.dim() == 3 else faces.permute(0, 3, 1, 2)).float().cpu()
    counts = torch.tensor([taps(each, footprint) for each in maps])
    views = planes.new_empty(len(planes), planes.shape[1], size, size)
    extent = torch.tensor(planes.shape[3:1:-1])
    for count in counts.unique().tolist():
        alike = (counts == count).nonzero()[:, 0]
        offsets = ((torch.arange(count) + 0.5) / count - 0.5) * footprint
        places = (torch.arange(size)[:, None] + offsets).flatten()  # (size · taps,)
        y, x = torch.meshgrid(places, places, indexing="ij")
        grid = torch.stack((x, y, torch.ones_like(x)), 2) @ maps[alike].transpose(1, 2)[:, None]
        grid = (2 * grid + 1) / extent - 1
        samples = F.grid_sample(planes[alike], grid, padding_mode="border", align_corners=False)
        views[alike] = F.avg_pool2d(samples, count) if count > 1 else samples
    return views


def _with_border(picture: _Picture) -> _Picture:
    # A large picture is first reduced by an integer factor, which is quicker.
    resized = Image.fromarray(picture).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    return np.pad(
        np.asarray(resized), ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), mode="edge"
    )


def _in_the_middle(faces: Sequence[Detection]) -> Detection | None:
    """The best face in the middle of a picture with a border, if it has real landmarks."""
    for face in faces:
        left, top, right, bottom = face.box
        x, y = (left + right) / 2 - _BORDER, (top + bottom) / 2 - _BORDER
        if max(abs(x / _SIDE - 0.5), abs(y / _SIDE - 0.5)) < _OFF_CENTRE:
            points = np.asarray(face.landmarks, np.float32)
            if points.shape == (5, 2) and np.ptp(points, axis=0).max() > _LEAST_SPREAD * _SIDE:
                return face
    return None


def _without_border(landmarks: ArrayLike, picture: _Picture) -> _Points:
    """Landmarks of a picture with a border in the picture's own pixels."""
    shares = (np.asarray(landmarks, np.float32) - _BORDER) / _SIDE
    return (shares * picture.shape[1::-1]).astype(np.float32)
