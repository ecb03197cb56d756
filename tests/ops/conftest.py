"""What the tests of the ops share."""

from __future__ import annotations

import pytest

from pcnn import ops
from pcnn.ops import native, reference


@pytest.fixture(params=["native", "reference"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled ops, then the reference, as those that pcnn.ops calls."""
    monkeypatch.setattr(
        ops, "_implementation", {"native": native, "reference": reference}[request.param]
    )
