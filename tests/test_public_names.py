"""The names that users import: as in public_names.txt, so that a change is seen."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).parent / "public_names.txt"
HOMES = (
    *("pcnn", "pcnn.datasets", "pcnn.embeddings", "pcnn.engines", "pcnn.images", "pcnn.ops"),
    *("pcnn.distributed", "pcnn.weights"),
)
NAMES = SNAPSHOT.read_text(encoding="utf-8").split()


def test_public_names_are_those_of_the_snapshot() -> None:
    found = [f"{home}.{name}" for home in HOMES for name in importlib.import_module(home).__all__]
    assert sorted(found) == NAMES, "write the change into tests/public_names.txt and CHANGELOG.md"


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_documented(name: str) -> None:
    home, _, own = name.rpartition(".")
    value = getattr(importlib.import_module(home), own)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__ and value.__doc__.strip()
