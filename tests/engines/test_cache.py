"""Measured choices and their memory."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pcnn.engines.cache import quickest, remembered
from pcnn.ops import native


def test_the_quickest_call_is_chosen() -> None:
    calls = {"slow": lambda: time.sleep(0.02), "quick": lambda: None}
    assert quickest(calls) == "quick"


def test_one_slow_start_does_not_count() -> None:
    begun = []

    def slow_at_first() -> None:
        if not begun:
            begun.append(True)
            time.sleep(0.2)

    assert quickest({"steady": lambda: time.sleep(0.01), "starting": slow_at_first}) == "starting"


def test_a_choice_is_measured_once_for_its_circumstances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = iter("abc")
    ask = [remembered("thing", ("a", "b", "c"), [own], lambda: next(answers)) for own in "xxyx"]
    assert ask == ["a", "a", "b", "a"]


def test_other_compiled_code_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers = iter("abc")
    found = []
    for sources in ("before", "after", "before"):
        module = SimpleNamespace(SOURCES=sources)
        monkeypatch.setattr(native, "compiled", lambda _, module=module: module)
        found.append(remembered("thing", ("a", "b", "c"), [], lambda: next(answers)))
    monkeypatch.setattr(native, "compiled", lambda _: "not built")
    found.append(remembered("thing", ("a", "b", "c"), [], lambda: next(answers)))
    assert found == ["a", "b", "a", "c"]


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pcnn").write_text("a file where the folder belongs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.warns(UserWarning, match="cannot be kept for the next time"):
        assert remembered("thing", ("a",), [], lambda: "a") == "a"
