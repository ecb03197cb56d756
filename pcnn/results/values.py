"""Results of a recognition: frozen dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pcnn.representation import Brief
from pcnn.results import rounding
from pcnn.results.angle import angle_of
from pcnn.results.movements import FaceMotion, Moving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from pcnn.images.loading import ImageSource

# The label of a face whose likeliest class is not likely enough.
UNCERTAIN = "uncertain"
_OwnFace = TypeVar("_OwnFace", bound="Face")

# Columns of a table of faces, before those of the classes.
FACE_COLUMNS = (
    *("source", "face", "label", "confidence"),
    *("x1", "y1", "x2", "y2", "detection_score", "angle", "quality"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Detection(Brief):
    """One detected face.

    box: x1, y1, x2, y2 in pixels of the upright image; it may extend beyond the image.
    score: 0…1.
    landmarks: (5, 2) float32, x y in pixels: left eye, right eye, nose, left and right mouth
        corner. Left and right are those of the image when the face is set upright.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float32]

    @property
    def angle(self) -> float:
        """As `Face.angle`."""
        return angle_of(self.landmarks.tolist())

    def rounded(self) -> Detection:
        """A copy with numbers rounded as in `Face.to_dict`."""
        landmarks = rounding.landmarks(self.landmarks)
        return Detection(rounding.box(self.box), rounding.probability(self.score), landmarks)


@dataclass(frozen=True, eq=False, repr=False)
class Expression(Brief):
    """The expression of one face.

    label: the likeliest class, or "uncertain" below the `min_confidence` or `min_quality` asked
        for; confidence: the probability of the likeliest class, 0…1.
    scores: name → probability in class order; they sum to 1.
    regions: region name → scores from that region alone, in the form of `scores`.
    values: name → number from a ValueHead, such as valence; empty without such a head.
    """

    label: str
    confidence: float
    scores: Mapping[str, float]
    regions: Mapping[str, Mapping[str, float]] = field(repr=False)
    values: Mapping[str, float] = field(default_factory=dict, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values for `json.dumps`; probabilities have 6 decimals.

        Without `values` that name is absent; they have 6 significant digits.
        """
        fields = {
            "label": self.label,
            "confidence": rounding.probability(self.confidence),
            "scores": rounding.probabilities(self.scores),
            "regions": {own: rounding.probabilities(s) for own, s in self.regions.items()},
        }
        if self.values:
            fields["values"] = {name: rounding.number(v) for name, v in self.values.items()}
        return fields


@dataclass(frozen=True, eq=False, repr=False)
class Face(Moving, Expression):
    """An Expression with its place in the image; for the fields see Detection.

    motion: what the face does, see FaceMotion; None unless the recognizer reads movements.
    quality: 0…1, how well the face can be seen, see docs/quality.md; None if nobody looked.
    """

    box: tuple[float, float, float, float]
    detection_score: float
    landmarks: NDArray[np.float32] = field(repr=False)
    motion: FaceMotion | None = field(default=None, repr=False, kw_only=True)
    quality: float | None = field(default=None, kw_only=True)

    @property
    def angle(self) -> float:
        """Degrees clockwise by which the face lies from upright, in (-180, 180].

        `image.rotate(face.angle)` of Pillow, which turns counterclockwise, sets it upright. 0
        where the landmarks say nothing: all in one place, or not finite.
        """
        return angle_of(self.landmarks.tolist())

    def to_dict(self) -> dict[str, Any]:
        """The fields and the angle by name, as values for `json.dumps`; no quality of None.

        Landmarks are five [x, y]. Probabilities and the detection score have 6 decimals, the
        quality 4, pixels and degrees 2.
        """
        return {
            **super().to_dict(),
            "box": list(rounding.box(self.box)),
            "detection_score": rounding.probability(self.detection_score),
            "angle": rounding.degrees(self.angle),
            **({} if self.quality is None else {"quality": rounding.share(self.quality)}),
            "landmarks": rounding.points(self.landmarks),
            **(self.motion.to_dict() if self.motion else {}),
        }

    def rounded(self: _OwnFace) -> _OwnFace:
        """A copy with numbers rounded as in `to_dict`; the motion stays as it is."""
        return dataclasses.replace(
            self,
            **super().to_dict(),
            box=rounding.box(self.box),
            detection_score=rounding.probability(self.detection_score),
            landmarks=rounding.landmarks(self.landmarks),
            quality=None if self.quality is None else rounding.share(self.quality),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Brief):
    """All faces of one image, the highest detection score first; may be empty.

    source: the path as given, or None for an image passed as an object.
    width, height: of the upright image, in pixels.
    """

    faces: tuple[Face, ...]
    source: str | None
    width: int
    height: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as values for `json.dumps`, in the form of `pcnn-predict`.

        Numbers are rounded as in `Face.to_dict`; the Prediction itself is not rounded.
        """
        return {
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "faces": [face.to_dict() for face in self.faces],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict for each face: FACE_COLUMNS, each class's probability, then `values`.

        Pose and movements follow, see `FaceMotion.row`. `face` counts from 1. Numbers
        are rounded as in `to_dict`. Without faces the list is empty.
        """
        return [_row(self.source, number, face) for number, face in enumerate(self.faces, 1)]

    def to_pandas(self) -> Any:
        """The table that `pcnn.to_pandas` makes of this prediction. See docs/tables.md.

        Raises InputError: pandas is not installed.
        """
        from pcnn.results.tables import to_pandas

        return to_pandas(self)

    def to_supervision(self) -> Any:
        """The faces as supervision.Detections, in order.

        xyxy (N, 4) float32 pixels; confidence (N,) float32, that of the label; class_id (N,) the
        likeliest class's place among the classes. data: `class_name` (N,), the labels, also
        "uncertain"; `scores` (N, classes) float32; `landmarks` (N, 5, 2) float32 pixels;
        `detection_score` (N,) float32.
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

    def draw(
        self,
        image: ImageSource | None = None,
        *,
        bgr: bool = False,
        mesh: bool = False,
        movements: bool = False,
    ) -> Image:
        """Draw each face's box, landmarks, label and scores on a copy of the picture.

        image: the predicted picture, in any form that `load_image` accepts. It may be omitted
            if `source` names its file.
        bgr: as in `load_image`. mesh: True draws the mesh and the head's axes instead of the
            landmarks. movements: True lists the strongest movements instead of the scores.
        Several faces are numbered from 1, as in `rows`.
        Returns an RGB PIL image of width × height. If both are at most 256, the image is enlarged
        to a multiple. A picture too narrow or low for a label gets a dark margin at the right or
        below.
        Raises InputError: no image and no source, an unreadable picture, or another size.
        """
        from pcnn.results.annotate import annotate, predicted_pixels  # import Pillow when needed

        pixels = predicted_pixels(self, image, bgr=bgr)
        return annotate(pixels, self.faces, mesh=mesh, movements=movements)


# The least drop of a decisive region. Hiding any region causes smaller changes.
DECISIVE_DROP = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Brief):
    """The reasons for one face's expression (see docs/explain.md).

    expression: as `predict` gives it, with each region's own scores; a Face for a photograph.
    answer: the likeliest class, also if the label is "uncertain"; the reasons are those for it.
    without: region name → scores of the face with that region hidden, in the form of `scores`.
    heat: (S, S) float32, 0…1; high where the face square contributes to the answer.
    boxes: region name → x1, y1, x2, y2 in the face square, as fractions of its side.
    picture: (P, P, 3) uint8 RGB, the upright, aligned face square.
    """

    expression: Expression
    answer: str
    without: Mapping[str, Mapping[str, float]]
    heat: NDArray[np.float32] = field(repr=False)
    boxes: Mapping[str, tuple[float, float, float, float]] = field(repr=False)
    picture: NDArray[np.uint8] = field(repr=False)

    @property
    def label(self) -> str:
        """The likeliest class, or "uncertain", as in Expression."""
        return self.expression.label

    @property
    def confidence(self) -> float:
        """The probability of the answer, 0…1."""
        return self.expression.confidence

    @property
    def regions(self) -> Mapping[str, Mapping[str, float]]:
        """Region name → its own scores."""
        return self.expression.regions

    @property
    def drops(self) -> dict[str, float]:
        """Region name → decrease of the answer's probability when it is hidden, −1…1."""
        own = self.answer
        return {name: self.confidence - scores[own] for name, scores in self.without.items()}

    @property
    def decisive(self) -> str | None:
        """The region with the largest drop; None if that is below DECISIVE_DROP."""
        region, drop = max(self.drops.items(), key=lambda item: item[1])
        return region if drop >= DECISIVE_DROP else None

    def to_dict(self) -> dict[str, Any]:
        """The expression's fields and the reasons but the heat, as values for `json.dumps`."""
        return {
            **self.expression.to_dict(),
            "answer": self.answer,
            "without": {own: rounding.probabilities(s) for own, s in self.without.items()},
            "decisive": self.decisive,
        }

    def draw(self, *, number: int | None = None) -> Image:
        """Draw the explanation as one RGB picture of 1000 × 562 pixels.

        number: shown before the answer, if a picture has several faces.
        """
        from pcnn.results.explanation_picture import draw_explanation

        return draw_explanation(self, number=number)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the drawn explanation as PNG."""
        from pcnn.results.notebooks import png

        return png(self.draw())


def expression_of(
    classes: Sequence[str],
    row: Tensor,
    regions: Mapping[str, Tensor],
    min_confidence: float = 0.0,
) -> Expression:
    """An Expression from probabilities (classes,) of the face, and of each region.

    min_confidence: below it the label is UNCERTAIN.
    """
    best = int(row.argmax())
    return Expression(
        label=classes[best] if float(row[best]) >= min_confidence else UNCERTAIN,
        confidence=float(row[best]),
        scores=dict(zip(classes, row.tolist(), strict=True)),
        regions={
            region: dict(zip(classes, own.tolist(), strict=True)) for region, own in regions.items()
        },
    )


def face_of(
    detection: Detection,
    expression: Expression,
    motion: FaceMotion | None = None,
    quality: float | None = None,
) -> Face:
    """A Face from a detection, its expression, what it does and how well it can be seen."""
    read = {own.name: getattr(expression, own.name) for own in dataclasses.fields(Expression)}
    return Face(
        **read,
        box=detection.box,
        detection_score=detection.score,
        landmarks=detection.landmarks,
        motion=motion,
        quality=quality,
    )


def _row(source: str | None, number: int, face: Face) -> dict[str, Any]:
    """One face as a row of a table."""
    fields = face.to_dict()
    values = (source, number, fields["label"], fields["confidence"], *fields["box"])
    values += (fields["detection_score"], fields["angle"], fields.get("quality"))
    named = zip(FACE_COLUMNS, values, strict=True)
    motion = face.motion.row() if face.motion else {}
    return {**dict(named), **fields["scores"], **fields.get("values", {}), **motion}
