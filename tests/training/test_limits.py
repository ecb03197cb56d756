"""Checks of options that trainings share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pcnn.errors import InputError
from pcnn.training.limits import check_at_least, check_decays, check_positive, check_shares


@dataclass
class Options:
    rate: Any


@pytest.mark.parametrize("wrong", ["a", None, float("nan"), True, [1]], ids=repr)
@pytest.mark.parametrize(
    ("check", "bound"),
    [
        (lambda options: check_at_least(options, 0, "rate"), "be at least 0"),
        (lambda options: check_positive(options, "rate"), "be above 0 and finite"),
        (lambda options: check_shares(options, "rate"), "lie in 0…1"),
        (lambda options: check_decays(options, "rate"), "be at least 0 and below 1"),
    ],
)
def test_what_is_no_number_is_refused(check: Any, bound: str, wrong: Any) -> None:
    with pytest.raises(InputError) as error:
        check(Options(wrong))
    assert str(error.value) == f"Options: rate must {bound}, got {wrong!r}"
    check(Options(0.5))


def test_what_is_infinite_is_refused() -> None:
    with pytest.raises(InputError, match=r"^Options: rate must be finite, got inf$"):
        check_at_least(Options(float("inf")), 0, "rate")
    with pytest.raises(InputError, match=r"^Options: rate must be above 0 and finite, got inf$"):
        check_positive(Options(float("inf")), "rate")
    with pytest.raises(InputError, match="above 0"):
        check_positive(Options(0), "rate")
