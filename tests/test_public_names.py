"""The names that users import: as in public_names.txt, so that a change is seen; and in use."""

from __future__ import annotations

import doctest
import importlib
import inspect
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pcnn
from pcnn import Recognizer

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


# Name → the package that its example needs and that is no dependency.
_NEEDED = {
    "pcnn.to_pandas": "pandas",
    "pcnn.to_arrow": "pyarrow",
    "pcnn.distributed.predict_batches": "pyarrow",
    "pcnn.distributed.predict_dataset": "ray",
}
_ROOT = Path(__file__).parent.parent


def _extra_examples() -> dict[str, str]:
    """Those of the site for names whose docstrings have none."""
    scope = runpy.run_path(str(_ROOT / "docs" / "generators" / "examples.py"))
    return dict(scope["EXAMPLES"])


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_public_names_have_an_example_that_runs(
    name: str, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, own = name.rpartition(".")
    module = importlib.import_module(home)
    value = getattr(module, own)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        pytest.skip("a constant")
    if name in _NEEDED:
        pytest.importorskip(_NEEDED[name])
    if name == "pcnn.distributed.predict_dataset":
        pytest.skip("it starts a cluster; tests/distributed/test_datasets.py does the same")
    (tmp_path / "docs").symlink_to(_ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    text = _extra_examples().get(name, value.__doc__ or "")
    scope: dict[str, Any] = {"recognizer": recognizer, "np": np, "torch": torch, "Path": Path}
    for each in (pcnn, module):
        scope.update({public: getattr(each, public) for public in each.__all__})
    test = doctest.DocTestParser().get_doctest(text, scope, name, None, None)
    assert test.examples, "an example is missing"
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not result.failed, "".join(report)
