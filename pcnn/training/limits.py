"""Checks of options that several trainings have."""

from __future__ import annotations

from pcnn.errors import InputError, is_number


def check_at_least(options: object, least: float, *names: str) -> None:
    """Check that options are at least `least`. Raises InputError: one is less."""
    for name in names:
        if not is_number(own := getattr(options, name)) or own < least:
            raise _wrong(options, name, f"be at least {least}")


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
