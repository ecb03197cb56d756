"""Checks of options that several trainings have."""

from __future__ import annotations

import math

from pcnn.errors import InputError, is_number


def check_at_least(options: object, least: float, *names: str) -> None:
    """Check that options are finite and at least `least`. Raises InputError: one is not."""
    for name in names:
        if not is_number(own := getattr(options, name)) or own < least:
            raise _wrong(options, name, f"be at least {least}")
        if own == math.inf:
            raise _wrong(options, name, "be finite")


def check_positive(options: object, *names: str) -> None:
    """Check that options are finite and above 0. Raises InputError: one is not."""
    for name in names:
        if not is_number(own := getattr(options, name)) or not 0 < own < math.inf:
            raise _wrong(options, name, "be above 0 and finite")


def check_shares(options: object, *names: str) -> None:
    """Check that options lie in 0…1. Raises InputError: one does not."""
    for name in names:
        if not is_number(own := getattr(options, name)) or not 0 <= own <= 1:
            raise _wrong(options, name, "lie in 0…1")


def check_decays(options: object, *names: str) -> None:
    """Check that options are at least 0 and below 1. Raises InputError: one is not."""
    for name in names:
        if not is_number(own := getattr(options, name)) or not 0 <= own < 1:
            raise _wrong(options, name, "be at least 0 and below 1")


def check_choices(options: object, **choices: tuple[str, ...]) -> None:
    """Check that options have one of the named values. Raises InputError: one has not."""
    for name, allowed in choices.items():
        if getattr(options, name) not in allowed:
            raise _wrong(options, name, f"be {' or '.join(allowed)}")


def _wrong(options: object, name: str, bound: str) -> InputError:
    got = getattr(options, name)
    return InputError(f"{type(options).__name__}: {name} must {bound}, got {got!r}")
