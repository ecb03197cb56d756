"""What a recognition returns: plain frozen values, nothing that computes."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pcnn.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from pcnn.images.loading import ImageSource

# Columns of a table of faces, before those of the classes.
FACE_COLUMNS = (
    *("source", "face", "label", "confidence"),
    *("x1", "y1", "x2", "y2", "detection_score"),
)


@dataclass(frozen=True, eq=False)
class Detection:
    """One face as the detector found it.

    box: x1, y1, x2, y2 in pixels of the upright image; may reach over its edges.
    score: 0…1.
    landmarks: (5, 2) float32, x y in pixels: left eye, right eye, nose, left and right
        mouth corner, left and right as seen in the image.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Expression:
    """The expression of one face.

    label: the likeliest class; confidence: its probability, 0…1.
    scores: name → probability in class order; they sum to 1.
    regions: region name → scores of that region on its own, same form as `scores`.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]
    regions: Mapping[str, Mapping[str, float]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values that `json.dumps` takes; probabilities of 6 decimals."""
        return {
            "label": self.label,
            "confidence": _probability(self.confidence),
            "scores": _probabilities(self.scores),
            "regions": {name: _probabilities(scores) for name, scores in self.regions.items()},
        }


@dataclass(frozen=True, eq=False)
class Face(Expression):
    """An Expression with the place where it was found (see Detection)."""

    box: tuple[float, float, float, float]
    detection_score: float
    landmarks: NDArray[np.float32] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values that `json.dumps` takes; landmarks as five [x, y].

        Probabilities and the detection score have 6 decimals, pixels 2.
        """
        return {
            **super().to_dict(),
            "box": [_pixels(edge) for edge in self.box],
            "detection_score": _probability(self.detection_score),
            "landmarks": [[_pixels(x), _pixels(y)] for x, y in self.landmarks],
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """All faces of one image, by falling detection score; empty where there is none.

    source: the path as given, or None for an image passed as an object.
    width, height: of the upright image, in pixels.
    """

    faces: tuple[Face, ...]
    source: str | None
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values that `json.dumps` takes: what `pcnn-predict` writes.

        Rounded as in `Face.to_dict`; the Prediction itself keeps every digit.
        """
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each face, in order: FACE_COLUMNS, then each class's probability.

        `face` counts from 1. Numbers are rounded as in `to_dict`. Without faces: an empty list.
        """
        return [_row(self.source, number, face) for number, face in enumerate(self.faces, 1)]

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with one line for each face, columns and digits as in `rows`.

        Without faces: no line, and the columns but for the classes.
        Raises InputError: pandas is not installed (it is no dependency of this package).
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise InputError(
                "Prediction.to_pandas: pandas must be installed: pip install pandas"
            ) from error
        return pandas.DataFrame(
            self.rows(), columns=[*FACE_COLUMNS, *(self.faces[0].scores if self.faces else ())]
        )

    def to_supervision(self) -> Any:
        """The faces as supervision.Detections, in order.

        xyxy (N, 4) float32 pixels; confidence (N,) float32, that of the label; class_id (N,) the
        label's place among the classes. data: `class_name` (N,), `scores` (N, classes) float32,
        `landmarks` (N, 5, 2) float32 pixels, `detection_score` (N,) float32.
        Without faces: empty Detections, without data.
        Raises InputError: supervision is not installed.
        """
        from pcnn.results.supervision import detections_of

        return detections_of(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: the annotated picture, if its file is there, and the table."""
        from pcnn.results.notebooks import prediction_html

        return prediction_html(self)

    def _repr_png_(self) -> bytes | None:
        """The annotated picture as PNG; None where `source` names no file that can be read."""
        from pcnn.results.notebooks import prediction_png

        return prediction_png(self)

    def draw(self, image: ImageSource | None = None, *, bgr: bool = False) -> Image:
        """A copy of the picture with each face's box, landmarks, label and scores drawn on it.

        image: the picture that was predicted (anything `load_image` takes); may be left out
            where `source` names its file.
        bgr: as in `load_image`.
        Several faces are numbered from 1, as in `rows`.
        Returns an RGB PIL image of width × height; of a multiple of that where both are 256 or
        less, and with dark ground beside or below what is too narrow or low for a label.
        Raises InputError: no image and no source, one that cannot be read, or of another size.
        """
        from pcnn.images.loading import load_image
        from pcnn.results.annotate import annotate  # Pillow is read only where it is needed

        picture = self.source if image is None else image
        if picture is None:
            raise InputError(
                "Prediction.draw: image must be given, as the picture came without a path: "
                "pass the same picture again"
            )
        pixels = load_image(picture, bgr=bgr)
        height, width = pixels.shape[:2]
        if (width, height) != (self.width, self.height):
            raise InputError(
                f"Prediction.draw: image must be {self.width} × {self.height} as predicted, "
                f"got {width} × {height}: pass the same picture"
            )
        return annotate(pixels, self.faces)


# A region decides only where hiding it takes this much from the answer: smaller changes are
# common to any hiding.
DECISIVE_DROP = 0.05


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why one face was read as it was (see docs/explain.md).

    expression: the answer, with what each region says on its own; a Face in a photograph.
    without: region name → scores of the face with that region hidden, as `scores`.
    heat: (S, S) float32, 0…1, where in the face square lies what speaks for the answer.
    boxes: region name → x1, y1, x2, y2 in the face square, as fractions of its side.
    picture: (P, P, 3) uint8 RGB, the face square to be drawn, upright and aligned.
    """

    expression: Expression
    without: Mapping[str, Mapping[str, float]]
    heat: NDArray[np.float32] = field(repr=False)
    boxes: Mapping[str, tuple[float, float, float, float]] = field(repr=False)
    picture: NDArray[np.uint8] = field(repr=False)

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.expression.label

    @property
    def confidence(self) -> float:
        """Its probability, 0…1."""
        return self.expression.confidence

    @property
    def regions(self) -> Mapping[str, Mapping[str, float]]:
        """Region name → its own scores."""
        return self.expression.regions

    @property
    def drops(self) -> dict[str, float]:
        """Region name → how much of the answer's probability goes when it is hidden, −1…1."""
        label = self.label
        return {name: self.confidence - scores[label] for name, scores in self.without.items()}

    @property
    def decisive(self) -> str | None:
        """The region whose hiding costs the answer most; None below DECISIVE_DROP."""
        region, drop = max(self.drops.items(), key=lambda item: item[1])
        return region if drop >= DECISIVE_DROP else None

    def placed(self, detection: Detection) -> Explanation:
        """The same of a face that was found somewhere: its expression is a Face."""
        return dataclasses.replace(self, expression=face_of(detection, self.expression))

    def to_dict(self) -> dict[str, Any]:
        """The expression's fields, and `without` and `decisive`, as `json.dumps` takes them."""
        return {
            **self.expression.to_dict(),
            "without": {name: _probabilities(scores) for name, scores in self.without.items()},
            "decisive": self.decisive,
        }

    def draw(self, *, number: int | None = None) -> Image:
        """The explanation as one RGB picture of 1000 × 562 pixels.

        number: written before the answer, where a picture has several faces.
        """
        from pcnn.results.explanation_picture import draw_explanation

        return draw_explanation(self, number=number)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the drawn explanation as PNG."""
        from pcnn.results.notebooks import png

        return png(self.draw())


def expression_of(classes: Sequence[str], row: Tensor, regions: Mapping[str, Tensor]) -> Expression:
    """An Expression from probabilities (classes,) of the face, and of each region."""
    best = int(row.argmax())
    return Expression(
        label=classes[best],
        confidence=float(row[best]),
        scores=dict(zip(classes, row.tolist(), strict=True)),
        regions={
            region: dict(zip(classes, own.tolist(), strict=True)) for region, own in regions.items()
        },
    )


def face_of(detection: Detection, expression: Expression) -> Face:
    """An expression where its face was found."""
    return Face(
        label=expression.label,
        confidence=expression.confidence,
        scores=expression.scores,
        regions=expression.regions,
        box=detection.box,
        detection_score=detection.score,
        landmarks=detection.landmarks,
    )


def _probabilities(scores: Mapping[str, float]) -> dict[str, float]:
    """The same scores as a dict of plain rounded floats, in order."""
    return {name: _probability(score) for name, score in scores.items()}


def _probability(value: float) -> float:
    """As it is written: more digits mean nothing, and differ from machine to machine."""
    return round(float(value), 6)


def _pixels(value: float) -> float:
    """As it is written: a hundredth is finer than the detector."""
    return round(float(value), 2)


def _row(source: str | None, number: int, face: Face) -> dict[str, Any]:
    """One face as a line of a table."""
    told = face.to_dict()
    values = (source, number, told["label"], told["confidence"], *told["box"])
    named = zip(FACE_COLUMNS, (*values, told["detection_score"]), strict=True)
    return {**dict(named), **told["scores"]}
