"""The pipeline: pictures in, the expressions of the people in them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch

from pcnn.devices import choose_device
from pcnn.embeddings.heads import Head, Vectors
from pcnn.engines.select import check_precision, choose_engine
from pcnn.errors import InputError
from pcnn.faces.alignment import crop_transforms
from pcnn.faces.detector import Detector, FaceDetector, OneAtATime
from pcnn.faces.geometry import face_transforms
from pcnn.ops import describe
from pcnn.recognition.batches import OnError, Picture, process_each
from pcnn.recognition.films import Film, Following, KnownFaces
from pcnn.recognition.reader import FaceReader, Transforms
from pcnn.results.values import Detection, Explanation, Expression, Face, Prediction, face_of
from pcnn.video.decoding import FilmReader
from pcnn.video.smoothing import SMOOTHING_S, STEADY_TEMPERATURE
from pcnn.video.sources import FilmSource
from pcnn.weights.expression import load_expression
from pcnn.weights.files import DEFAULT_DETECTOR, DEFAULT_WEIGHTS, sha256

_Many: TypeAlias = list[Any] | tuple[Any, ...]


class Recognizer:
    """Finds the faces in pictures and reads their expressions.

    weights: a name or path of expression weights; None is the packaged default.
    detector: a name ("mobilenet", "resnet50"), the path of a checkpoint, or an object with a
        `detect` method like FaceDetector's, which is called by one thread at a time, of ours
        where there are many pictures; None is the packaged MobileNet.
    device: "auto" (CUDA where there is one, else CPU), or a torch device.
    head: a Head of your own, or its file: gives labels and scores in place of the network's own,
        and the regions say nothing.
    engine: what runs the networks: "torch", on a CPU also "openvino" or "onnxruntime", or "auto",
        the quickest that is installed; "compile" is torch.compile's compiler, ahead of time. See
        docs/export.md.
    precision: what the expression network computes in: "float32", "bfloat16", on a GPU "float16",
        or "auto", see engines.prepare_classifier.
    batch_size: how many pictures share a pass, when many are predicted; some more are in memory.
    align_crops: whether `predict_crops`, `embed_crops` and `explain_crops` turn and scale a face so
        that its landmarks lie as in training; None does it if the weights were taught so.
    Safe to use from several threads.
    Raises InputError: an engine or a precision that cannot be had; WeightsError: see
        weights.locate, weights.load_expression and Head.load; a head that was fitted on the
        vectors of other weights.

    >>> from pcnn import Recognizer
    >>> prediction = Recognizer().predict("docs/images/astronaut.png")
    >>> prediction.faces[0].label
    'happiness'
    """

    def __init__(  # noqa: PLR0913 - the one entry, each of whose parts can be chosen
        self,
        weights: str | Path | None = None,
        detector: str | Path | FaceDetector | None = None,
        device: str | torch.device = "auto",
        *,
        head: Head | str | Path | None = None,
        engine: str = "torch",
        precision: str = "float32",
        batch_size: int = 8,
        align_crops: bool | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"Recognizer: batch_size must be at least 1, got {batch_size}")
        self.device = choose_device(device, "Recognizer: device")
        self.batch_size = batch_size
        self._weights = load_expression(weights or DEFAULT_WEIGHTS)
        self._weights.network.to(self.device)
        own_head = Head.load(head) if isinstance(head, (str, Path)) else head
        if own_head is not None:
            name = str(head) if isinstance(head, (str, Path)) else "Recognizer: head"
            own_head.check_weights(self.weights_sha256, name)
        engine = choose_engine(engine, self.device)
        check_precision(precision, engine, self.device)
        if detector is None or isinstance(detector, (str, Path)):
            detector = detector or DEFAULT_DETECTOR
            detector = Detector.load(detector, device=self.device, engine=engine)
        self._detector: Detector | OneAtATime = (
            detector if isinstance(detector, Detector) else OneAtATime(detector)
        )
        self._reader = FaceReader(self._weights, own_head, self.device, engine, precision)
        self._align_crops = self._weights.aligned if align_crops is None else align_crops

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions' names, in the order of every `scores`."""
        return self._reader.classes

    @cached_property
    def weights_sha256(self) -> str:
        """Of the expression weights' file, hexadecimal."""
        return sha256(self._weights.path)

    @property
    def embedding_size(self) -> int:
        """D: the values of a face's vector."""
        return self._reader.embedding_size

    @overload
    def predict(
        self, images: _Many, *, bgr: bool = ..., min_score: float | None = ...
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self, images: _Many, *, bgr: bool = ..., min_score: float | None = ..., on_error: OnError
    ) -> list[Prediction | InputError]: ...
    @overload
    def predict(
        self, images: Iterator[Any], *, bgr: bool = ..., min_score: float | None = ...
    ) -> Iterator[Prediction]: ...
    @overload
    def predict(
        self,
        images: Iterator[Any],
        *,
        bgr: bool = ...,
        min_score: float | None = ...,
        on_error: OnError,
    ) -> Iterator[Prediction | InputError]: ...
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
        """The faces of one picture, or of each of many, with their expressions.

        images: whatever images.load_image takes (path, bytes, PIL image, array, tensor), or a list,
            tuple or iterator of such.
        bgr: arrays and tensors have OpenCV's channel order.
        min_score: the least detection score, 0…1; None leaves it to the detector.
        on_error: "return" puts the InputError in the place of a picture that cannot be read,
            and the others are predicted all the same.
        Returns a Prediction for one picture, for a list or tuple a list of them in its order, for
        an iterator an iterator, which reads ahead by a few times `batch_size` pictures.
        Raises InputError: a picture that cannot be read, unless on_error is "return".
        """

        def predict_batch(pictures: list[Picture]) -> list[Prediction]:
            faces = self._faces(pictures, min_score)
            return [_prediction(*each) for each in zip(pictures, faces, strict=True)]

        return self._each(images, predict_batch, bgr=bgr, on_error=on_error)

    def predict_video(  # noqa: PLR0913 - a film can be read in many ways
        self,
        source: FilmSource,
        *,
        every: float | None = None,
        start: float | None = None,
        end: float | None = None,
        smoothing: float | None = SMOOTHING_S,
        min_score: float | None = None,
        keep_pixels: bool = False,
        known: KnownFaces = (),
    ) -> Film:
        """The faces of people in a film, followed from frame to frame. See docs/video.md.

        source: a path, an address (`rtsp://…`), `camera:0`, `-` for standard input, bytes, or a
            binary file open for reading.
        every: seconds from one frame to the next that is looked at; None looks at all.
        start, end: seconds; frames from `start` on and before `end`.
        smoothing: seconds over which scores are steadied; None leaves them as they are.
        min_score: the least detection score of somebody new; None leaves it to the detector.
        keep_pixels: give each Frame its pixels; a list of such frames takes much memory.
        known: indices of frames with their faces, of an earlier run with the same arguments, by
            index; `scores` are raw. In batches of frames up to the last no faces are looked for.
        Returns an iterator of Frames, which reads ahead by a few batches (nothing of a live film).
        Raises InputError: PyAV is not installed; not a film, no video in it, no decoder for it;
            a number out of range. While reading: no frame could be decoded.
        """
        own = self._detector.settings.confidence if isinstance(self._detector, Detector) else 0.0
        following = Following(
            self._faces,
            sure=own if min_score is None else min_score,
            smoothing=smoothing,
            temperature=STEADY_TEMPERATURE,
            step=self.batch_size,
            device=self.device,
        )
        reader = FilmReader(source, every=every, start=start, end=end)
        return Film(reader, following, source=source, keep_pixels=keep_pixels, known=known)

    def predict_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """The expression of pictures that already are faces, cut out as in FER or RAF-DB.

        images, bgr, on_error: as for `predict`. Faces are aligned where `align_crops` says so and
        landmarks are found; else the whole picture, stretched to a square, is taken as one.
        Returns an Expression for one picture, for many as `predict` does.
        Raises InputError: as `predict`.
        """

        def read_batch(pictures: list[Picture]) -> list[Expression]:
            return self._reader.expressions(pictures, self._whole(pictures))

        return self._each(images, read_batch, bgr=bgr, on_error=on_error)

    def embed(
        self,
        images: Any,
        *,
        bgr: bool = False,
        min_score: float | None = None,
        on_error: OnError = "raise",
        boxes: bool = False,
    ) -> Any:
        """The faces of one picture, or of each of many, as vectors.

        images, bgr, min_score, on_error: as for `predict`.
        boxes: give pairs of the vectors and their boxes (faces, 4) float32, pixels.
        Returns for one picture (faces, D) float32 rows of unit norm, in the order of `predict`'s
        faces, for many as `predict` does. A vector is the mean-pooled stage-4 map of the fused
        face: what the expression is read from. See docs/embeddings.md.
        Raises InputError: as `predict`.
        """

        def embed_batch(pictures: list[Picture]) -> list[Any]:
            found, transforms = self._find(pictures, min_score)
            rows = self._reader.vectors(pictures, transforms)
            ends = np.cumsum([len(faces) for faces in found])[:-1]
            vectors = np.split(rows, ends)
            if not boxes:
                return vectors
            places = [
                np.array([f.box for f in faces], np.float32).reshape(-1, 4) for faces in found
            ]
            return list(zip(vectors, places, strict=True))

        return self._each(images, embed_batch, bgr=bgr, on_error=on_error)

    def embed_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """The vectors of pictures that already are faces.

        images, bgr, on_error: as for `predict_crops`.
        Returns (D,) for one picture, (N, D) for a list, an iterator of (D,) for an iterator; with
        on_error="return", for a list a list of (D,) and errors. Vectors are those of `embed`.
        Raises InputError: as `predict`.
        """

        def embed_batch(pictures: list[Picture]) -> list[Vectors]:
            return list(self._reader.vectors(pictures, self._whole(pictures)))

        found = self._each(images, embed_batch, bgr=bgr, on_error=on_error)
        if isinstance(found, list) and on_error == "raise":
            return np.array(found, np.float32).reshape(-1, self.embedding_size)
        return found

    def explain(
        self,
        images: Any,
        *,
        bgr: bool = False,
        min_score: float | None = None,
        on_error: OnError = "raise",
    ) -> Any:
        """Why each face of one picture, or of each of many, is read as it is.

        images, bgr, min_score, on_error: as for `predict`.
        Returns a list of Explanations for one picture, in the order of `predict`'s faces, for
        many as `predict` does. See docs/explain.md.
        Raises InputError: as `predict`; the recognizer has a head.
        """

        def explain_batch(pictures: list[Picture]) -> list[list[Explanation]]:
            found, transforms = self._find(pictures, min_score)
            explained = iter(self._reader.explanations(pictures, transforms))
            return [[next(explained).placed(face) for face in faces] for faces in found]

        return self._each(images, explain_batch, bgr=bgr, on_error=on_error)

    def explain_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """Why pictures that already are faces are read as they are: one Explanation for each.

        images, bgr, on_error: as for `predict_crops`. Raises InputError: as `explain`.
        """

        def explain_batch(pictures: list[Picture]) -> list[Explanation]:
            return self._reader.explanations(pictures, self._whole(pictures))

        return self._each(images, explain_batch, bgr=bgr, on_error=on_error)

    def info(self) -> list[tuple[str, str]]:
        """What this recognizer is made of, as (name, text) pairs."""
        scores, size = self._weights.metadata.get("scores", {}), self._weights.network.config.size
        described = "; ".join(f"{100 * value:.2f} % on {name}" for name, value in scores.items())
        pairs = [
            ("device", str(self.device)),
            ("engine", self._reader.engine),
            ("weights", str(self._weights.path)),
            ("weights sha256", self.weights_sha256),
            ("weights accuracy", described or "not recorded"),
            ("input", f"{size} × {size} pixels"),
            ("detector", self._detector.description),
            ("pictures of faces", "aligned first" if self._align_crops else "taken as they are"),
        ]
        return pairs + [(f"op {name}", text) for name, text in describe()]

    def _each(
        self,
        images: Any,
        work: Callable[[list[Picture]], list[Any]],
        *,
        bgr: bool,
        on_error: OnError,
    ) -> Any:
        """What `work` makes of the pictures, see batches.process_each."""
        return process_each(
            images, work, step=self.batch_size, device=self.device, bgr=bgr, on_error=on_error
        )

    def _faces(self, pictures: list[Picture], min_score: float | None) -> list[list[Face]]:
        """The faces of each picture, with their expressions."""
        found, transforms = self._find(pictures, min_score)
        expressions = iter(self._reader.expressions(pictures, transforms))
        return [[face_of(face, next(expressions)) for face in faces] for faces in found]

    def _find(
        self, pictures: list[Picture], min_score: float | None
    ) -> tuple[Sequence[Sequence[Detection]], list[Transforms]]:
        """The faces of each picture, and the transforms of their views."""
        found = self._detector.detect([p.pixels for p in pictures], min_score=min_score)
        config, template = self._weights.network.config, self._weights.template
        return found, [
            face_transforms(
                [face.landmarks for face in faces], template, config.size, config.layout
            )
            for faces in found
        ]

    def _whole(self, pictures: list[Picture]) -> list[Transforms]:
        """The transforms of the views of pictures that are faces."""
        template, config = self._weights.template, self._weights.network.config
        detector = self._detector if self._align_crops else None
        return crop_transforms([p.pixels for p in pictures], template, config, detector)


def _prediction(picture: Picture, faces: Sequence[Face]) -> Prediction:
    height, width = picture.pixels.shape[:2]
    return Prediction(tuple(faces), source=picture.source, width=width, height=height)
