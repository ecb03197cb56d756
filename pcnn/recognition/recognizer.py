"""The recognizer: faces of pictures, with expressions, embeddings and explanations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch

from pcnn.devices import check_process, choose_device, own_settings
from pcnn.embeddings.heads import Head, Vectors
from pcnn.embeddings.values import ValueHead
from pcnn.engines.select import choose_engine, choose_precision, prepare_classifier
from pcnn.errors import InputError
from pcnn.faces.interface import FaceDetector
from pcnn.ops import describe
from pcnn.recognition import choices
from pcnn.recognition.batches import OnError, Picture, process_each
from pcnn.recognition.film_search import SEARCH_EVERY_S
from pcnn.recognition.films import Film, FilmOptions, KnownFaces
from pcnn.recognition.finder import FaceFinder
from pcnn.recognition.movements import MovementReader
from pcnn.recognition.photographs import PhotographReader
from pcnn.recognition.reader import FaceReader
from pcnn.results.values import Explanation, Expression, Prediction
from pcnn.video.decoding import FilmReader
from pcnn.video.smoothing import SMOOTHING_S
from pcnn.video.sources import FilmSource
from pcnn.weights.files import sha256

_Many: TypeAlias = list[Any] | tuple[Any, ...]


class Recognizer:
    """Find the faces in pictures and predict their expressions.

    weights: a name or path of expression weights; None means those of the head, if it was fitted
        on packaged ones, else the packaged default.
    detector: a name ("mobilenet", "resnet50"), the path of a checkpoint, or an object with a
        `detect` method like FaceDetector's. Only one thread at a time calls such an object. A
        faces.detector.Detector keeps its own device, engine and precision. None means the
        packaged MobileNet.
    device: "auto" (CUDA where available, else CPU), or a torch device.
    head: your own Head or ValueHead, or its file. A Head replaces the network's labels and scores;
        there are no region scores then. A ValueHead adds `values`. See docs/own-labels.md.
    engine: the software for inference: "torch"; on a CPU also "openvino" or "onnxruntime";
        "auto" means the quickest installed one. "compile" compiles ahead of time with
        torch.compile's compiler. See docs/export.md.
    precision: of the expression network's arithmetic, and on a CPU of the detector's: "float32",
        "bfloat16", on a GPU "float16", or "auto", see select.choose_precision.
    batch_size: pictures in one pass when there are many; None takes 8, of cut-out faces 64.
    align_crops: True aligns the faces for `predict_crops`, `embed_crops` and `explain_crops` by
        their landmarks. None does so if the head's examples, else the weights', were aligned.
    labels: "fer2013" gives FER2013's seven labels, if the weights have heads for them; None gives
        the weights' first labels.
    prior: the assumed frequencies of the classes. "data" takes those of the training faces, for
        the highest accuracy. "uniform" takes equal ones, which finds more faces of rare classes.
        docs/evaluation.md compares both.
    min_confidence: 0…1; if the likeliest class has less, the label is "uncertain". The scores do
        not change.
    min_quality: 0…1; faces of photographs that can be seen less well, see docs/quality.md, are
        "uncertain" in the same way.
    movements: True also reads each face's movements, pose and mesh; a path or name does so with
        those weights. See docs/movements.md.
    min_face: the shorter side of the smallest faces to look for, in pixels; most smaller ones are
        missed. A larger one makes the search quicker. None: see Detector.detect for photographs;
        in films faces of a 24th of the frame's shorter side.
    Several threads may use it.
    Raises InputError: an engine or a precision is not available, or a head's name is another's.
    Raises WeightsError: see files.locate, load_expression and Head.load; also if a head was
        fitted on embeddings of other weights.

    >>> from pcnn import Recognizer
    >>> prediction = Recognizer().predict("docs/images/astronaut.png")
    >>> prediction.faces[0].label
    'happiness'
    """

    @own_settings(gradients=True)
    def __init__(  # noqa: PLR0913 - the one entry, each of whose parts can be chosen
        self,
        weights: str | Path | None = None,
        detector: str | Path | FaceDetector | None = None,
        device: str | torch.device = "auto",
        *,
        head: Head | ValueHead | str | Path | None = None,
        engine: str = "torch",
        precision: str = "float32",
        batch_size: int | None = None,
        align_crops: bool | None = None,
        labels: str | None = None,
        prior: str = "data",
        min_confidence: float = 0.0,
        min_quality: float = 0.0,
        movements: bool | str | Path = False,
        min_face: float | None = None,
    ) -> None:
        # All arguments; no other variable exists yet.
        self._made_of = choices.lasting({n: v for n, v in locals().items() if n != "self"})
        choices.check_choices(batch_size, min_confidence, min_quality, prior, min_face)
        self.device = choose_device(device, "Recognizer: device")
        self.batch_size, self._crops_batch_size = choices.batch_sizes(batch_size)
        own_head = self._made_of["head"] = choices.chosen_head(head, labels, prior)
        self._weights = choices.chosen_weights(weights, own_head, labels, prior)
        self._weights.network.to(self.device)
        choices.check_head(own_head, head, self.weights_sha256)
        engine = choose_engine(engine, self.device)
        precision = choose_precision(self._weights, engine, precision)
        found_by = choices.chosen_detector(detector, self.device, engine, precision, min_face)
        prepared, self._engine = prepare_classifier(self._weights, engine, precision)
        self.reader = FaceReader(
            self._weights, prepared, own_head, self.device, min_confidence=min_confidence
        )
        self.finder = FaceFinder(
            found_by,
            self._weights,
            align_crops=choices.aligns_crops(align_crops, own_head, self._weights),
            min_face=min_face,
        )
        moved_by = choices.movement_weights(movements)
        self._moving = None if moved_by is None else MovementReader(moved_by, self.device)
        choices.check_columns(self.classes, self.value_names, self.movements)
        self._photographs = PhotographReader(
            self.finder, self.reader, self._moving, min_quality=min_quality
        )
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        """Arguments for a copy in another process, which loads the files again."""
        return partial(type(self), **self._made_of), ()

    def __repr__(self) -> str:
        parts = f"{self._weights.path.stem} on {self.device}; detector {self.finder.description}"
        return f"<Recognizer: {parts}; labels {', '.join((*self.classes, *self.value_names))}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions' names, in the order of every `scores`."""
        return self.reader.classes

    @property
    def value_names(self) -> tuple[str, ...]:
        """The names of a ValueHead's numbers, in the order of `values`; empty without one."""
        return self.reader.value_names

    @property
    def movements(self) -> tuple[str, ...]:
        """The movements' names, in the order of every face's; empty unless they are read."""
        return self._moving.names if self._moving else ()

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the expression weights' file, hexadecimal."""
        return sha256(self._weights.path)

    @property
    def embedding_size(self) -> int:
        """D, the number of values of a face's embedding."""
        return self.reader.embedding_size

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
        """Find the faces of one picture, or of many pictures, and predict their expressions.

        images: a picture in any form that load_image accepts (path, bytes, PIL image, array,
            tensor), or a list, tuple or iterator of pictures.
        bgr: True if arrays and tensors have OpenCV's channel order.
        min_score: the least detection score, 0…1; None means the detector's own.
        on_error: "return" gives an InputError in place of the result of an unreadable picture,
            and predicts the others.
        Returns a Prediction for one picture, and for a list or tuple a list of them in its order.
            An iterator gives an iterator, which reads ahead by a few times `batch_size` pictures.
        Raises InputError: a picture cannot be read, unless on_error is "return".
        """

        work = partial(self._photographs.predictions, min_score=min_score)
        return self._each(images, work, bgr=bgr, on_error=on_error)

    def predict_video(  # noqa: PLR0913 - a film can be read in many ways
        self,
        source: FilmSource,
        *,
        every: float | None = None,
        start: float | None = None,
        end: float | None = None,
        smoothing: float | None = SMOOTHING_S,
        min_score: float | None = None,
        search_every: float = SEARCH_EVERY_S,
        keep_pixels: bool = False,
        known: KnownFaces = (),
    ) -> Film:
        """Track the faces in a film and predict their expressions. See docs/video.md.

        source: a path, an address (`rtsp://…`), `camera:0`, `-` for standard input, bytes, or a
            binary file open for reading.
        every: seconds between analysed frames; None analyses all frames.
        start, end: seconds; frames from `start` on and before `end`.
        smoothing: time constant for smoothing the scores, in seconds; None for raw scores.
        min_score: the least detection score of a new track; None means the detector's own.
        search_every: seconds between searches of the whole frame for new faces. Between them
            faces are looked for where their tracks predict them. 0 searches the whole of each
            frame, as for a photograph but for `min_face`.
        keep_pixels: True stores the pixels in each Frame; a list of such frames needs much memory.
        known: (frame index, faces) of an earlier run with the same arguments, with raw `scores`.
            In batches of frames up to the last of them no faces are looked for.
        Returns an iterator of Frames, which reads a few batches ahead (not for a live film).
        Raises InputError: PyAV is not installed; the source is no film, has no video or no
            decoder; or a number is out of range. While reading: no frame could be decoded.
        """
        options = FilmOptions(
            sure=self.finder.confidence if min_score is None else min_score,
            search_every=search_every,
            smoothing=smoothing,
            step=self.batch_size,
            keep_pixels=keep_pixels,
        )
        film = FilmReader(source, every=every, start=start, end=end)
        return Film(film, self._photographs, options, source=source, known=known)

    def predict_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """Predict the expressions of cut-out faces, as in FER or RAF-DB.

        images, bgr, on_error: as for `predict`. With `align_crops`, faces with detected landmarks
            are aligned. Otherwise the whole picture is resized to a square.
        Returns an Expression for one picture; for many pictures as `predict` does.
        Raises InputError: as `predict`.
        """

        def read_batch(pictures: list[Picture]) -> list[Expression]:
            return self.reader.expressions(pictures, self.finder.whole(pictures))

        return self._each(images, read_batch, bgr=bgr, on_error=on_error, crops=True)

    def embed(
        self,
        images: Any,
        *,
        bgr: bool = False,
        min_score: float | None = None,
        on_error: OnError = "raise",
        boxes: bool = False,
    ) -> Any:
        """Find the faces of one picture, or of many pictures, and compute their embeddings.

        images, bgr, min_score, on_error: as for `predict`.
        boxes: True returns pairs of embeddings and boxes (faces, 4) float32, pixels.
        Returns (faces, D) float32 for one picture, rows of unit norm in the order of `predict`'s
            faces; for many pictures as `predict` does. An embedding is the mean-pooled stage-4
            map of the fused face, for an ensemble of each network: see docs/embeddings.md.
        Raises InputError: as `predict`.
        """

        work = partial(self._photographs.embeddings, min_score=min_score, boxes=boxes)
        return self._each(images, work, bgr=bgr, on_error=on_error)

    def embed_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """Compute the embeddings of cut-out faces.

        images, bgr, on_error: as for `predict_crops`.
        Returns (D,) for one picture, (N, D) for a list, an iterator of (D,) for an iterator. With
            on_error="return" a list gives a list of (D,) and errors. For embeddings see `embed`.
        Raises InputError: as `predict`.
        """

        def embed_batch(pictures: list[Picture]) -> list[Vectors]:
            return list(self.reader.vectors(pictures, self.finder.whole(pictures)))

        found = self._each(images, embed_batch, bgr=bgr, on_error=on_error, crops=True)
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
        """Explain the expression of each face of one picture, or of many pictures.

        images, bgr, min_score, on_error: as for `predict`.
        Returns a list of Explanations for one picture, of `predict`'s faces in their order; for
            many pictures as `predict` does. See docs/explain.md, also for how scores differ.
        Raises InputError: as `predict`; also if the recognizer has a Head.
        """

        work = partial(self._photographs.explanations, min_score=min_score)
        return self._each(images, work, bgr=bgr, on_error=on_error)

    def explain_crops(self, images: Any, *, bgr: bool = False, on_error: OnError = "raise") -> Any:
        """Explain the expressions of cut-out faces, with one Explanation for each.

        images, bgr, on_error: as for `predict_crops`. Raises InputError: as `explain`.
        """

        def explain_batch(pictures: list[Picture]) -> list[Explanation]:
            return self.reader.explanations(pictures, self.finder.whole(pictures))

        return self._each(images, explain_batch, bgr=bgr, on_error=on_error, crops=True)

    def info(self) -> list[tuple[str, str]]:
        """A description of the recognizer's parts, as (name, text) pairs."""
        aligned = "aligned first" if self.finder.align_crops else "taken as they are"
        pairs = [("device", str(self.device)), ("engine", self._engine), *self.reader.facts()]
        pairs += [("detector", self.finder.description), ("pictures of faces", aligned)]
        return [*pairs, *((f"op {name}", text) for name, text in describe())]

    def _each(
        self,
        images: Any,
        work: Callable[[list[Picture]], list[Any]],
        *,
        bgr: bool,
        on_error: OnError,
        crops: bool = False,
    ) -> Any:
        """The results of `work` for the pictures, see batches.process_each."""
        if self.device.type != "cpu":
            check_process(self._process, "Recognizer on a GPU")
        step = self._crops_batch_size if crops else self.batch_size
        return process_each(images, work, step=step, device=self.device, bgr=bgr, on_error=on_error)
