"""Checks of the numbers and names that a recognizer is made of."""

from __future__ import annotations

from pcnn.errors import InputError
from pcnn.weights.expression import PRIORS


def check_choices(
    batch_size: int, min_confidence: float, prior: str, *, head: bool, labels: str | None
) -> None:
    """Raise InputError, naming the argument of Recognizer, for an invalid one.

    head: there is a head of one's own.
    """
    if batch_size < 1:
        raise InputError(f"Recognizer: batch_size must be at least 1, got {batch_size}")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"Recognizer: min_confidence must lie in 0…1, got {min_confidence}")
    if prior not in PRIORS:
        raise InputError(f"Recognizer: prior must be {' or '.join(PRIORS)}, got {prior!r}")
    if head and (labels is not None or prior != "data"):
        raise InputError("Recognizer: a head has its own labels: omit labels= and prior=")
