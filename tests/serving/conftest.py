"""A server with the page that `make page` built, and browsers that open it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import PAGE, Server

if TYPE_CHECKING:
    from chromium import Browser


@pytest.fixture(scope="module")
def page_server() -> Iterator[Server]:
    pytest.importorskip("selenium")
    from chromium import CHROMIUM, DRIVER

    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    if not (PAGE / "built" / "manifest.json").is_file():
        pytest.skip("needs the networks of the page: make page")
    running = Server("--page", str(PAGE))
    yield running
    running.stop()


@pytest.fixture
def browser(page_server: Server, tmp_path: Path) -> Iterator[Browser]:
    from chromium import Browser

    made = Browser(tmp_path)
    yield made
    made.close()
