"""The choices of a Recognizer: their checks, its head, and the weights that fit the head."""

from __future__ import annotations

from pathlib import Path

from pcnn.embeddings.heads import Head
from pcnn.embeddings.values import ValueHead, load_head
from pcnn.errors import InputError
from pcnn.weights.expression import PRIORS
from pcnn.weights.files import DEFAULT_WEIGHTS, name_of_sha256


def check_choices(batch_size: int, min_confidence: float, prior: str) -> None:
    """Raise InputError unless these arguments of Recognizer are in their ranges."""
    if batch_size < 1:
        raise InputError(f"Recognizer: batch_size must be at least 1, got {batch_size}")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"Recognizer: min_confidence must lie in 0…1, got {min_confidence}")
    if prior not in PRIORS:
        raise InputError(f"Recognizer: prior must be {' or '.join(PRIORS)}, got {prior!r}")


def chosen_head(
    head: Head | ValueHead | str | Path | None, labels: str | None, prior: str
) -> Head | ValueHead | None:
    """The head, read if it is a file; None without one.

    Raises InputError: `labels` or `prior` beside a head that has its own labels.
    Raises WeightsError: as Head.load.
    """
    own = load_head(head) if isinstance(head, (str, Path)) else head
    if isinstance(own, Head) and (labels is not None or prior != "data"):
        raise InputError("Recognizer: a head has its own labels: omit labels= and prior=")
    return own


def weights_for(head: Head | ValueHead | None) -> str:
    """The name of the weights if none are given: those of the head if packaged, else the default.

    Other weights do not fit a head, so the caller checks it.
    """
    return (head and name_of_sha256(head.weights_sha256)) or DEFAULT_WEIGHTS
