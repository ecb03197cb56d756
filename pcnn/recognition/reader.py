"""Reading of located faces: their expressions, embeddings and explanations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pcnn.embeddings.heads import Head, Vectors, unit_norm
from pcnn.embeddings.values import ValueHead
from pcnn.engines.classifier import PreparedClassifier
from pcnn.engines.cuda_graphs import with_cuda_graphs
from pcnn.errors import InputError
from pcnn.faces.geometry import FacePlaces, transforms_of
from pcnn.faces.views import cut_views
from pcnn.recognition.batches import Picture
from pcnn.recognition.explanations import explain_faces
from pcnn.results.values import Explanation, Expression, expression_of
from pcnn.weights.expression import ExpressionWeights

_FACES_AT_ONCE = 64  # bounds the memory of one forward pass
_Result = TypeVar("_Result")


class FaceReader:
    """The expression network, ready for inference, with its calibration and classes.

    loaded: weights with the network on `device`.
    prepared: the network, see select.prepare_classifier.
    head: a Head replaces the network's own labels and scores; a ValueHead adds numbers; None
        without one.
    min_confidence: below it a face's label is "uncertain".
    Several threads may use it.
    """

    def __init__(
        self,
        loaded: ExpressionWeights,
        prepared: PreparedClassifier,
        head: Head | ValueHead | None,
        device: torch.device,
        *,
        min_confidence: float = 0.0,
    ) -> None:
        self._loaded, self._prepared = loaded, prepared
        self._answers = with_cuda_graphs(_Answers(loaded, prepared), device)
        self._head = head if isinstance(head, Head) else None
        self._value_head = head if isinstance(head, ValueHead) else None
        self.device, self.min_confidence = device, min_confidence

    @property
    def classes(self) -> tuple[str, ...]:
        """The expressions' names, in the order of every `scores`."""
        return self._head.labels if self._head else self._loaded.network.config.classes

    def facts(self) -> list[tuple[str, str]]:
        """A description of the weights and the head, as (name, text) pairs."""
        if self._head is not None:
            return [*self._loaded.facts(), ("head", f"labels {', '.join(self.classes)}")]
        if self._value_head is not None:
            return [*self._loaded.facts(), ("head", f"numbers {', '.join(self.value_names)}")]
        return self._loaded.facts()

    @property
    def value_names(self) -> tuple[str, ...]:
        """The names of a ValueHead's numbers; empty without one."""
        return self._value_head.names if self._value_head else ()

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the weights read by themselves; empty if they explain nothing."""
        return self._loaded.network.regions

    @property
    def embedding_size(self) -> int:
        """D, the number of values of a face's embedding."""
        return self._loaded.network.embedding_size

    def expressions(
        self, pictures: Sequence[Picture], places: Sequence[FacePlaces]
    ) -> list[Expression]:
        """The expressions of all faces of all pictures, in order.

        places: of the faces of each picture.
        """
        mirror = self._loaded.mirror and self._head is None  # embeddings are of the face alone
        return self._read(pictures, places, self._read_views, mirror=mirror)

    def vectors(self, pictures: Sequence[Picture], places: Sequence[FacePlaces]) -> Vectors:
        """The embeddings of all faces of all pictures, (faces, D) float32 of unit norm."""
        rows = self._read(pictures, places, lambda views: list(self._embed_views(views)))
        return np.array(rows, np.float32).reshape(-1, self.embedding_size)

    def explanations(
        self, pictures: Sequence[Picture], places: Sequence[FacePlaces]
    ) -> list[Explanation]:
        """The explanations of all faces of all pictures, in order.

        Raises InputError: there is a head with other labels.
        """
        if self._head is not None:
            raise InputError("Recognizer.explain: cannot explain a head's answers: omit head=")
        pixels = [picture.pixels for picture in pictures]
        config = self._loaded.network.config
        transforms = [transforms_of(own, config.size, config.layout) for own in places]
        explained = explain_faces(
            self._loaded, pixels, transforms, self.device, min_confidence=self.min_confidence
        )
        if self._value_head is None:
            return explained
        numbers = self._numbers(self.vectors(pictures, places))
        return [
            dataclasses.replace(each, expression=dataclasses.replace(each.expression, values=own))
            for each, own in zip(explained, numbers, strict=True)
        ]

    @torch.inference_mode()
    def _read(
        self,
        pictures: Sequence[Picture],
        places: Sequence[FacePlaces],
        read: Callable[[Sequence[Tensor]], list[_Result]],
        *,
        mirror: bool = False,
    ) -> list[_Result]:
        """The results of `read` for the views of all faces, computed in chunks.

        mirror: True gives it their mirror images, too.
        """
        loaded = self._loaded
        views = cut_views(
            [picture.pixels for picture in pictures],
            places,
            loaded.network.config,
            native_size=loaded.native_size,
            device=self.device,
            names=loaded.network.views,
            mirror=mirror,
        )
        results: list[_Result] = []
        if not len(views[0]):
            return results
        for chunk in zip(*(view.split(_FACES_AT_ONCE) for view in views), strict=True):
            results += read(chunk)
        return results

    def _embed_views(self, views: Sequence[Tensor]) -> Vectors:
        """The vectors of faces, from their views; mirror images after them are ignored."""
        own = views[: len(self._loaded.network.views)]
        return unit_norm(self._prepared.embed_views(own).cpu().numpy())

    def _read_views(self, views: Sequence[Tensor]) -> list[Expression]:
        expressions = self._classify(views)
        if self._value_head is None:
            return expressions
        numbers = self._numbers(self._embed_views(views))
        return [
            dataclasses.replace(each, values=own)
            for each, own in zip(expressions, numbers, strict=True)
        ]

    def _numbers(self, vectors: Vectors) -> list[dict[str, float]]:
        """A ValueHead's numbers by name, for each embedding; empty without such a head."""
        if self._value_head is None:
            return [{} for _ in vectors]
        rows = self._value_head.predict(vectors).tolist()
        return [dict(zip(self.value_names, row, strict=True)) for row in rows]

    def _classify(self, views: Sequence[Tensor]) -> list[Expression]:
        if self._head is not None:
            own = torch.from_numpy(self._head.predict_proba(self._embed_views(views)))
            return [expression_of(self.classes, row, {}, self.min_confidence) for row in own]
        names = self._loaded.network.regions
        (answers,) = self._answers(views)
        return [
            expression_of(
                self.classes, row[0], dict(zip(names, row[1:], strict=True)), self.min_confidence
            )
            for row in answers.cpu()
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Answers:
    """All that follows the views, as one function: on a GPU it becomes one CUDA graph."""

    loaded: ExpressionWeights
    prepared: PreparedClassifier

    def __call__(self, views: Sequence[Tensor]) -> list[Tensor]:
        """One tensor (B, 1 + regions, classes): the face's probabilities, then each region's.

        views: each (B, C, h, w); their mirror images follow if the weights need them.
        """
        loaded, count = self.loaded, len(self.loaded.network.views)
        logits, regions = loaded.answer(
            self.prepared.forward_views, views[:count], views[count:] or None
        )
        answers = [loaded.probabilities(logits)]
        answers += [loaded.probabilities(regions[name], name) for name in loaded.network.regions]
        return [torch.stack(answers, 1)]
