"""The choices of a Recognizer: their checks, its head, and the weights that fit the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcnn.embeddings.heads import Head
from pcnn.embeddings.values import ValueHead, load_head
from pcnn.errors import InputError, check_count, is_number
from pcnn.faces.detector import Detector
from pcnn.faces.interface import FaceDetector, OneAtATime
from pcnn.faces.levels import check_min_face
from pcnn.results.frames import FILM_COLUMNS, RAW
from pcnn.results.movements import movement_columns
from pcnn.results.tables import COLUMNS, MESH
from pcnn.results.values import FACE_COLUMNS, UNCERTAIN
from pcnn.weights.expression import PRIORS, ExpressionWeights, load_expression
from pcnn.weights.files import locate, name_of_sha256, sha256
from pcnn.weights.known import (
    DEFAULT_DETECTOR,
    DEFAULT_LANDMARKS,
    DEFAULT_MOVEMENTS,
    DEFAULT_WEIGHTS,
    SPECS,
)

# Names of columns that every table of results has.
TABLE_COLUMNS = frozenset((*FACE_COLUMNS, *FILM_COLUMNS, *COLUMNS))


def batch_sizes(batch_size: int | None) -> tuple[int, int]:
    """The numbers of photographs and of cut-out faces in one pass, see Recognizer."""
    return (8, 64) if batch_size is None else (batch_size, batch_size)


def check_choices(
    batch_size: int | None,
    min_confidence: float,
    min_quality: float,
    prior: str,
    min_face: float | None,
) -> None:
    """Raise InputError unless these arguments of Recognizer are in their ranges."""
    if batch_size is not None:
        check_count("Recognizer", "batch_size", batch_size)
    for name, least in (("min_confidence", min_confidence), ("min_quality", min_quality)):
        if not is_number(least) or not 0 <= least <= 1:
            raise InputError(f"Recognizer: {name} must lie in 0…1, got {least!r}")
    if prior not in PRIORS:
        raise InputError(f"Recognizer: prior must be {' or '.join(PRIORS)}, got {prior!r}")
    check_min_face(min_face, "Recognizer")


def chosen_head(
    head: Head | ValueHead | str | Path | None, labels: str | None, prior: str
) -> Head | ValueHead | None:
    """The head, read if it is a file; None without one.

    Raises InputError: `labels` or `prior` beside a head that has its own labels.
    Raises WeightsError: as Head.load.
    """
    own = load_head(head) if isinstance(head, (str, Path)) else head
    if (
        own is not None
        and not isinstance(own, ValueHead)
        and (labels is not None or prior != "data")
    ):
        raise InputError("Recognizer: a head has its own labels: omit labels= and prior=")
    if own is not None and not isinstance(own, (Head, ValueHead)):
        raise InputError(f"Recognizer: head must be a Head, a ValueHead or a file, got {head!r}")
    return own


def check_head(
    head: Head | ValueHead | None, given: Head | ValueHead | str | Path | None, sha256: str
) -> None:
    """Raise WeightsError unless the head, if any, was fitted on embeddings of these weights.

    given: the argument that the head was made of.
    """
    if head is not None:
        file = isinstance(given, (str, Path))
        head.check_weights(sha256, str(given) if file else "Recognizer: head")


def aligns_crops(
    asked: bool | None, head: Head | ValueHead | None, weights: ExpressionWeights
) -> bool:
    """Whether cut-out faces are aligned: as asked for, else as for the head, else the weights.

    Raises InputError: `asked` is neither a truth value nor None.
    """
    if asked is not None and not isinstance(asked, (bool, np.bool_)):
        raise InputError(f"Recognizer: align_crops must be True, False or None, got {asked!r}")
    for choice in (asked, head.align_crops if head else None):
        if choice is not None:
            return choice
    return weights.aligned


def check_columns(classes: Sequence[str], values: Sequence[str], movements: Sequence[str]) -> None:
    """Raise InputError if two of these, or one of them and a table, have the same column.

    values: the names of a ValueHead's numbers. movements: names; not empty if they are read.
    """
    others = (
        ("class", classes),
        ("column of movements", (*movement_columns(movements), *((MESH,) if movements else ()))),
        ("column of tables", TABLE_COLUMNS),
        ("column of films", tuple(RAW + name for name in classes)),
        ("label of faces that are too uncertain", (UNCERTAIN,)),
    )
    for kind, names in (("class", classes), ("number", values)):
        for other, taken in others:
            twins = [name for name in names if name in taken and kind != other]
            if twins:
                raise InputError(
                    f"Recognizer: the head's {kind} {twins[0]!r} is also a {other}: "
                    "fit the head with another name"
                )


def chosen_detector(
    detector: str | Path | FaceDetector | None,
    device: torch.device,
    engine: str,
    precision: str,
    min_face: float | None,
) -> Detector | OneAtATime:
    """The detector, loaded if it is a name, a path or None; an own object in its wrapper.

    device, engine, precision: of a detector that is loaded; a Detector has its own.
    Raises WeightsError: as Detector.load. Raises InputError: `min_face` with an own object, or
    an object without a method `detect`.
    """
    if detector is None or isinstance(detector, (str, Path)):
        name = DEFAULT_DETECTOR if detector is None else detector
        return Detector.load(name, device=device, engine=engine, precision=precision)
    if isinstance(detector, Detector):
        return detector
    if not callable(getattr(detector, "detect", None)):
        raise InputError(
            "Recognizer: detector must be a name, a path or an object with a method detect, "
            f"got {detector!r}"
        )
    if min_face is not None:
        raise InputError("Recognizer: a detector of your own cannot be given min_face: omit it")
    return OneAtATime(detector)


def chosen_weights(
    weights: str | Path | None, head: Head | ValueHead | None, labels: str | None, prior: str
) -> ExpressionWeights:
    """The expression weights, those of `weights_for` if none are given.

    Raises WeightsError, InputError: see load_expression and for_equal_classes.
    """
    loaded = load_expression(weights_for(head) if weights is None else weights, labels)
    return loaded.for_equal_classes() if prior == "uniform" else loaded


def weights_for(head: Head | ValueHead | None) -> str:
    """The name of the weights if none are given: those of the head if packaged, else the default.

    Other weights do not fit a head, so the caller checks it.
    """
    return (head and name_of_sha256(head.weights_sha256)) or DEFAULT_WEIGHTS


def movement_weights(asked: bool | str | Path | None) -> str | Path | None:
    """The name or path of the movement weights: the packaged ones if True; None if not asked."""
    if isinstance(asked, (bool, np.bool_)):
        return DEFAULT_MOVEMENTS if asked else None
    return asked


def lasting(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of Recognizer by name, with absolute paths: for a copy in another folder."""
    kept = dict(arguments)
    for name in ("weights", "detector", "movements"):
        given = kept[name]
        if isinstance(given, (str, Path)) and str(given) not in SPECS and Path(given).is_file():
            kept[name] = str(Path(given).absolute())
    return kept


def checksums(options: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256, hexadecimal, of each file that a recognizer would read, by what it is for.

    options: arguments of Recognizer by name, with names and paths alone; those left out have
        their defaults. The head and the movements stand only among the names if they are read.
    Raises WeightsError: see files.locate and load_head.
    """
    head, movements = options.get("head"), options.get("movements")
    weights, detector = options.get("weights"), options.get("detector")
    if weights is None:
        weights = weights_for(None if head is None else load_head(head))
    files = {"weights": locate(weights, kind="expression")}
    if head is not None:
        files["head"] = Path(head)
    files["detector"] = locate(DEFAULT_DETECTOR if detector is None else detector, kind="detector")
    files["landmarks"] = locate(DEFAULT_LANDMARKS, kind="landmarks")
    if (named := movement_weights(movements)) is not None:
        files["movements"] = locate(named, kind="movements")
    return {name: sha256(path) for name, path in files.items()}
