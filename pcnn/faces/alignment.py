"""Pictures that already are faces, laid so that their landmarks lie where training faces have them.

Data sets cut their faces out each in its own way, and users in theirs. A network that was taught on
aligned faces (`ExpressionWeights.aligned`) is shown such pictures aligned, too, as the faces that
the detector finds in photographs always are.
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

from pcnn.devices import own_settings
from pcnn.disk import cache_folder, whole_file
from pcnn.errors import InputError
from pcnn.faces.detector import Detector, FaceDetector
from pcnn.faces.geometry import face_transforms, picture_transforms
from pcnn.networks.pcnn import ModelConfig
from pcnn.ops.reference import taps
from pcnn.results.values import Detection
from pcnn.terminal import track
from pcnn.weights.expression import ExpressionWeights
from pcnn.weights.files import DEFAULT_DETECTOR

# Before it looks for landmarks the detector, which knows photographs, gets the face at this side
# and with a frame, in pixels, that goes on with the face's edges.
_SIDE, _FRAME = 96, 48
# The face meant is the best whose middle lies so near to the picture's, as a share of the side.
_OFF_CENTRE = 0.35
# Landmarks that are no wider apart, as a share of the side, are none: not every detector has any.
_LEAST_SPREAD = 0.05
_FACES_AT_ONCE = 64

_Picture: TypeAlias = NDArray[np.uint8]
_Points: TypeAlias = NDArray[np.float32]


def find_landmarks(pictures: Sequence[_Picture], detector: FaceDetector) -> list[_Points | None]:
    """The landmarks of the face that each picture is, or None where none is surely found.

    pictures: (H, W, 3) uint8 RGB, each a face. detector: its own least score decides.
    Returns arrays (5, 2), continuous coordinates of the picture.
    """
    # Such faces stand upright, and the packaged weights were taught on what one look finds.
    look = detector.detect_upright if isinstance(detector, Detector) else detector.detect
    found = look([_framed(picture) for picture in pictures])
    return [_meant(faces, picture) for faces, picture in zip(found, pictures, strict=True)]


@own_settings()
def crop_transforms(
    pictures: Sequence[_Picture],
    template: ArrayLike,
    config: ModelConfig,
    detector: FaceDetector | None,
) -> list[NDArray[np.float32]]:
    """The maps along which pictures that are faces are cut into views, (1, 6, 2, 3) for each.

    pictures: as for find_landmarks. template: see geometry.face_transforms.
    detector: finds the landmarks to align by; without one, and where it finds none, the whole
        picture is taken, stretched to a square.
    """
    landmarks: list[_Points | None] = [None] * len(pictures)
    if detector is not None:
        landmarks = find_landmarks(pictures, detector)
    return [
        _transforms(picture, points, template, config)
        for picture, points in zip(pictures, landmarks, strict=True)
    ]


def _transforms(
    picture: _Picture, points: _Points | None, template: ArrayLike, config: ModelConfig
) -> NDArray[np.float32]:
    """The maps of a picture that is a face, (1, 6, 2, 3). points: its landmarks, if any."""
    size, layout = config.size, config.layout
    if points is None or not np.isfinite(points).all():
        return picture_transforms(picture.shape[1], picture.shape[0], size, layout)
    return face_transforms([points], template, size, layout)


@own_settings()
def dataset_landmarks(faces: Tensor, detector: FaceDetector) -> _Points:
    """The landmarks of a data set's faces, (N, 5, 2); NaN where none are surely found.

    faces: see align_faces. Kept in the cache folder: a data set is looked through once for each
    detector. A detector without weights of its own is asked each time.
    """
    kept = landmarks_file(faces, detector)
    if kept is not None and kept.is_file():
        found: _Points = np.load(kept)
        return found
    grey = faces.dim() == 3
    places = np.full((len(faces), 5, 2), np.nan, np.float32)
    at = 0
    for chunk in track(faces.split(_FACES_AT_ONCE), "finding landmarks"):
        planes = chunk[..., None].expand(-1, -1, -1, 3) if grey else chunk
        for points in find_landmarks(list(planes.cpu().contiguous().numpy()), detector):
            if points is not None:
                places[at] = points
            at += 1
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as temporary:
            np.save(temporary, places)
    return places


@own_settings()
def measure_template(faces: Tensor, detector: FaceDetector) -> list[list[float]]:
    """Where the landmarks of a data set's faces lie on average.

    faces: see align_faces. Returns five (x, y), fractions of the face's side; the mean over the
    faces in which they were found.
    Raises InputError: the detector found no face in any.
    """
    points = dataset_landmarks(faces, detector)
    found = np.isfinite(points).all((1, 2))
    if not found.any():
        raise InputError("measure_template: the detector found no face in the training faces")
    mean = points[found].mean(0) / np.array(faces.shape[2:0:-1])
    return [[float(x), float(y)] for x, y in mean]


def landmarks_file(faces: Tensor, detector: FaceDetector) -> Path | None:
    """Where the landmarks of these faces by this detector are kept; None: nowhere."""
    if not isinstance(detector, Detector):
        return None
    digest = hashlib.sha256(repr(detector.settings).encode())
    for value in detector.network.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    digest.update(str(tuple(faces.shape)).encode())
    digest.update(faces.cpu().contiguous().numpy().tobytes())
    return cache_folder() / "landmarks" / f"{digest.hexdigest()[:32]}.npy"


def framing(
    weights: ExpressionWeights,
    detector: str | Path | None = None,
    *,
    faces: bool = False,
) -> Callable[[_Picture], NDArray[np.float32]]:
    """A way from a picture (H, W, 3) to the maps of its faces' views, (F, 6, 2, 3).

    detector: what Detector.load takes, None for the default; only loaded if needed.
    faces: each picture is a face, aligned if the weights ask for it.
    """
    config, template = weights.network.config, weights.template
    finder: Detector | None = None
    if not faces or weights.aligned:
        device = next(weights.network.parameters()).device
        finder = Detector.load(detector or DEFAULT_DETECTOR, device=device)

    def transforms(picture: _Picture) -> NDArray[np.float32]:
        if faces or finder is None:
            return crop_transforms([picture], template, config, finder)[0]
        points = [face.landmarks for face in finder.detect([picture])[0]]
        return face_transforms(points, template, config.size, config.layout)

    return transforms


def suited_faces(
    weights: ExpressionWeights,
    faces: Tensor,
    detector: FaceDetector | str | Path = DEFAULT_DETECTOR,
) -> tuple[Tensor, int]:
    """A data set's faces as the weights were taught on them, and how fine those are.

    faces: see align_faces. detector: one, or what Detector.load takes; only loaded if needed.
    Returns the faces, aligned if the weights ask for it, and the side in pixels of as much detail
    as the network is to see of them: `native_size` elsewhere.
    """
    if not weights.aligned:
        return faces, weights.native_size
    if isinstance(detector, (str, Path)):
        device = next(weights.network.parameters()).device
        detector = Detector.load(detector, device=device)
    size = weights.network.config.size
    return align_faces(faces, weights.template, size, weights.native_size, detector), size


@own_settings()
def align_faces(
    faces: Tensor, template: ArrayLike, size: int, native_size: int, detector: FaceDetector
) -> Tensor:
    """A data set's faces, aligned; as they are, but for their size, where no landmarks are found.

    faces: (N, H, W) grey or (N, H, W, 3) RGB, uint8. template: see geometry.face_transforms.
    size: the side of the result in pixels. native_size: see pictures.cut_views.
    Shows its progress on a terminal's stderr.
    Returns (N, size, size) or (N, size, size, 3) uint8 on the CPU, in whole levels; without faces
    an empty tensor.
    """
    grey = faces.dim() == 3
    channels = 1 if grey else 3
    levels = ModelConfig(size=size, mean=(0.0,) * channels, std=(1 / 255,) * channels)
    aligned = []
    landmarks = iter(dataset_landmarks(faces, detector))
    for chunk in track(faces.split(_FACES_AT_ONCE), "aligning"):
        planes = chunk[..., None].expand(-1, -1, -1, 3) if grey else chunk
        pictures = list(planes.cpu().contiguous().numpy())
        transforms = [
            _transforms(picture, points, template, levels)
            for picture, points in zip(pictures, landmarks, strict=False)
        ]
        maps = torch.from_numpy(np.concatenate(transforms)[:, 0])  # (B, 2, 3)
        views = _cut_alike(chunk, maps, size, size / native_size)
        rounded = views.round().clamp(0, 255).to(torch.uint8)  # (B, C, size, size)
        aligned.append(rounded[:, 0] if grey else rounded.permute(0, 2, 3, 1))
    return torch.cat(aligned)


def _cut_alike(faces: Tensor, maps: Tensor, size: int, footprint: float) -> Tensor:
    """What ops.crop_regions makes of faces of one size, all of one number of taps at once.

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


def _framed(picture: _Picture) -> _Picture:
    # A large picture is first reduced in whole steps, which is quicker.
    resized = Image.fromarray(picture).resize(
        (_SIDE, _SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0
    )
    return np.pad(np.asarray(resized), ((_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0)), mode="edge")


def _meant(faces: Sequence[Detection], picture: _Picture) -> _Points | None:
    """Of what was found in a framed picture the landmarks of its face, in the picture's pixels."""
    for face in faces:
        left, top, right, bottom = face.box
        x, y = (left + right) / 2 - _FRAME, (top + bottom) / 2 - _FRAME
        if max(abs(x / _SIDE - 0.5), abs(y / _SIDE - 0.5)) < _OFF_CENTRE:
            points = (np.asarray(face.landmarks, np.float32) - _FRAME) / _SIDE
            if points.shape == (5, 2) and np.ptp(points, axis=0).max() > _LEAST_SPREAD:
                return (points * picture.shape[1::-1]).astype(np.float32)
    return None
