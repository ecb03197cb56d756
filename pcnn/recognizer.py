"""The pipeline: pictures in, the expressions of the people in them out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pcnn import ops, weights
from pcnn.detector import Detector
from pcnn.errors import InputError
from pcnn.geometry import face_transforms, picture_transforms
from pcnn.images import load_image
from pcnn.regions import REGIONS
from pcnn.results import Detection, Expression, Face, Prediction

DEFAULT_WEIGHTS = "pcnn-ferplus"
DEFAULT_DETECTOR = "mobilenet"
_FACES_AT_ONCE = 64  # bounds the memory of one forward pass

OnError = Literal["raise", "return"]
_Result = TypeVar("_Result")


class FaceDetector(Protocol):
    """What `Recognizer(detector=…)` takes as an object."""

    def detect(
        self, images: Sequence[NDArray[np.uint8]], *, min_score: float | None = None
    ) -> Sequence[Sequence[Detection]]:
        """For each image (H, W, 3) uint8 RGB its faces, best first."""


class Recognizer:
    """Finds the faces in pictures and reads their expressions.

    weights: a name or path of expression weights; None is the packaged default.
    detector: a name ("mobilenet", "resnet50"), the path of a checkpoint, or an object with a
        `detect` method like FaceDetector's; None is the packaged MobileNet.
    device: "auto" (CUDA where there is one, else CPU), or a torch device.
    batch_size: how many pictures are held in memory at once, when a list is predicted.
    Safe to use from several threads: nothing changes after construction.
    Raises WeightsError: see weights.locate and weights.load_expression.

    >>> from pcnn import Recognizer
    >>> prediction = Recognizer().predict("docs/images/astronaut.png")
    >>> prediction.faces[0].label
    'happiness'
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        detector: str | Path | FaceDetector | None = None,
        device: str | torch.device = "auto",
        *,
        batch_size: int = 16,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"Recognizer: batch_size must be at least 1, got {batch_size}")
        self.device = _device(device)
        self.batch_size = batch_size
        self._weights = _load_expression(weights or DEFAULT_WEIGHTS)
        self._network = self._weights.network.to(
            device=self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._detector: FaceDetector
        if detector is None or isinstance(detector, (str, Path)):
            self._detector = Detector.load(detector or DEFAULT_DETECTOR, device=self.device)
        else:
            self._detector = detector

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions' names, in the order of every `scores`."""
        return self._weights.network.config.classes

    @overload
    def predict(
        self, images: list[Any], *, bgr: bool = ..., min_score: float | None = ...
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        images: list[Any],
        *,
        bgr: bool = ...,
        min_score: float | None = ...,
        on_error: Literal["return"],
    ) -> list[Prediction | InputError]: ...
    @overload
    def predict(
        self, images: Any, *, bgr: bool = ..., min_score: float | None = ...
    ) -> Prediction: ...
    def predict(
        self,
        images: Any,
        *,
        bgr: bool = False,
        min_score: float | None = None,
        on_error: OnError = "raise",
    ) -> Any:
        """The faces of one picture, or of each in a list or tuple, with their expressions.

        images: whatever images.load_image takes (path, bytes, PIL image, array, tensor).
        bgr: arrays and tensors have OpenCV's channel order.
        min_score: the least detection score, 0…1; None leaves it to the detector.
        on_error: "return" puts the InputError in the place of a picture that cannot be read,
            and the others are predicted all the same.
        Returns a Prediction for one picture, for a list a list of them in its order.
        Raises InputError: a picture that cannot be read, unless on_error is "return".
        """

        def predict_batch(pictures: list[_Picture]) -> list[Prediction]:
            return self._predict_batch(pictures, min_score)

        return self._each(images, predict_batch, bgr=bgr, on_error=on_error)

    def predict_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """The expression of pictures that already are faces, cut out as in FER or RAF-DB.

        images, bgr, on_error: as for `predict`. No face is looked for: the whole picture,
        stretched to a square, is taken as one.
        Returns an Expression for one picture, for a list a list of them in its order.
        Raises InputError: as `predict`.
        """
        return self._each(images, self._crop_batch, bgr=bgr, on_error=on_error)

    def info(self) -> list[tuple[str, str]]:
        """What this recognizer is made of, as (name, text) pairs."""
        path = self._weights.path
        scores = self._weights.metadata.get("scores", {})
        described = "; ".join(f"{100 * value:.2f} % on {name}" for name, value in scores.items())
        pairs = [
            ("device", str(self.device)),
            ("weights", str(path)),
            ("weights sha256", weights.sha256(path)),
            ("weights accuracy", described or "not recorded"),
            ("input", f"{self._network.config.size} × {self._network.config.size} pixels"),
            ("detector", str(getattr(self._detector, "description", self._detector))),
        ]
        return pairs + [(f"op {name}", text) for name, text in ops.describe()]

    def _each(
        self,
        images: Any,
        process: Callable[[list[_Picture]], list[_Result]],
        *,
        bgr: bool,
        on_error: OnError,
    ) -> Any:
        """Read and process pictures a batch at a time, errors in their places."""
        if on_error not in ("raise", "return"):
            raise InputError(f"Recognizer: on_error must be 'raise' or 'return', got {on_error!r}")
        if not isinstance(images, (list, tuple)):
            single = _read(images, bgr, "image", on_error)
            return process([single])[0] if isinstance(single, _Picture) else single
        results: list[_Result | InputError] = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            read = [
                _read(image, bgr, f"images[{i}]", on_error) for i, image in enumerate(batch, start)
            ]
            done = iter(process([item for item in read if isinstance(item, _Picture)]))
            results += [item if isinstance(item, InputError) else next(done) for item in read]
        return results

    def _predict_batch(self, pictures: list[_Picture], min_score: float | None) -> list[Prediction]:
        found = self._detector.detect([p.pixels for p in pictures], min_score=min_score)
        config = self._network.config
        transforms = [
            face_transforms(
                [face.landmarks for face in faces],
                self._weights.template,
                config.size,
                config.layout,
            )
            for faces in found
        ]
        expressions = iter(self._expressions(pictures, transforms))
        return [
            Prediction(
                faces=tuple(_face(detection, next(expressions)) for detection in faces),
                source=picture.source,
                width=picture.pixels.shape[1],
                height=picture.pixels.shape[0],
            )
            for picture, faces in zip(pictures, found, strict=True)
        ]

    def _crop_batch(self, pictures: list[_Picture]) -> list[Expression]:
        config = self._network.config
        transforms = [
            picture_transforms(p.pixels.shape[1], p.pixels.shape[0], config.size, config.layout)
            for p in pictures
        ]
        return self._expressions(pictures, transforms)

    @torch.inference_mode()
    def _expressions(
        self, pictures: list[_Picture], transforms: list[NDArray[np.float32]]
    ) -> list[Expression]:
        """One Expression for each transform of each picture, in order, across pictures."""
        config = self._network.config
        sizes = [box.size for box in config.layout.boxes(config.size).values()]
        crops = [
            ops.crop_regions(
                torch.from_numpy(picture.pixels).to(self.device),
                torch.from_numpy(maps).to(self.device),
                sizes,
                mean=config.mean,
                std=config.std,
                # Trained on coarser faces than the view could hold, the network expects
                # pixels that average as much of the face as theirs do.
                footprint=config.size / self._weights.native_size,
            )
            for picture, maps in zip(pictures, transforms, strict=True)
            if len(maps)
        ]
        if not crops:
            return []
        views = [torch.cat(parts) for parts in zip(*crops, strict=True)]  # six (faces, C, h, w)
        expressions: list[Expression] = []
        for chunk in zip(*(view.split(_FACES_AT_ONCE) for view in views), strict=True):
            expressions += self._read_views(chunk)
        return expressions

    def _read_views(self, views: Sequence[Tensor]) -> list[Expression]:
        loaded = self._weights
        logits, region_logits = self._network.forward_views(views)
        scores = (logits / loaded.temperature).softmax(1).cpu()
        regions = {
            name: (region_logits[name] / loaded.region_temperatures[name]).softmax(1).cpu()
            for name in REGIONS
        }
        return [
            _expression(self.classes, row, {name: regions[name][i] for name in REGIONS})
            for i, row in enumerate(scores)
        ]


class _Picture:
    """One picture as read: its pixels, and its path if it came from a file.

    name: what messages call it where it has no file name.
    """

    def __init__(self, image: Any, bgr: bool, name: str) -> None:
        self.pixels = load_image(image, bgr=bgr, name=name)
        self.source = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None


def _read(image: Any, bgr: bool, name: str, on_error: OnError) -> _Picture | InputError:
    try:
        return _Picture(image, bgr, name)
    except InputError as error:
        if on_error == "raise":
            raise
        return error


def _expression(classes: Iterable[str], row: Tensor, regions: dict[str, Tensor]) -> Expression:
    names = tuple(classes)
    best = int(row.argmax())
    return Expression(
        label=names[best],
        confidence=float(row[best]),
        scores=dict(zip(names, row.tolist(), strict=True)),
        regions={
            region: dict(zip(names, own.tolist(), strict=True)) for region, own in regions.items()
        },
    )


def _face(detection: Detection, expression: Expression) -> Face:
    return Face(
        label=expression.label,
        confidence=expression.confidence,
        scores=expression.scores,
        regions=expression.regions,
        box=detection.box,
        detection_score=detection.score,
        landmarks=detection.landmarks,
    )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Recognizer: device {str(device)!r} cannot be used ({error})") from error
    return chosen


def _load_expression(name: str | Path) -> weights.ExpressionWeights:
    # The constructor's parameter hides the module of that name.
    return weights.load_expression(name)
