"""The page in Chromium: what its first visit loads, and how quickly it reads a camera.

    python benchmarks/bench_page.py --json benchmarks/page.json

Needs what the tests marked `browser` need, and `make page`. The camera is a film of the portrait,
640 × 480 at 25 pictures a second. Pictures a second are by the clock; processor time a picture is
that of all of the browser's processes, camera, drawing and networks together, which other programs
change less.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared import ROOT, processor

sys.path.insert(0, str(ROOT / "tests"))
from chromium import Browser, film
from served import PAGE, Server

_COUNT = """window.read = 0;
new MutationObserver(() => { window.read += 1; })
  .observe(document.querySelector("#live-faces"), { childList: true });"""
_WARM = 10  # pictures before any is counted


def first_visit(server: Server, folder: Path) -> float:
    """MB that the server sends to a browser that has never been there."""
    browser = Browser(folder)
    try:
        browser.open(server)
        browser.until(lambda: browser.js("return document.body.dataset.offline === 'yes'"))
    finally:
        browser.close()
    return round(server.sent("other") / 1e6, 1)


def camera(server: Server, folder: Path, pictures: int) -> dict[str, Any]:
    """How quickly so many pictures of a camera are read."""
    film(ROOT / "docs" / "images" / "astronaut.png", folder / "camera.y4m")
    browser = Browser(folder, camera=folder / "camera.y4m")
    try:
        browser.open(server)
        browser.js(_COUNT)
        browser.find("#camera").click()
        browser.until(lambda: browser.js("return window.read") >= _WARM)
        before, began = browser.processor_seconds(), time.monotonic()
        first = browser.js("return window.read")
        browser.until(lambda: browser.js("return window.read") >= first + pictures)
        read = browser.js("return window.read") - first
        seconds, after = time.monotonic() - began, browser.processor_seconds()
        label = browser.find("#live-faces strong").text
    finally:
        browser.close()
    spent = {kind: after[kind] - before.get(kind, 0) for kind in after}
    return {
        "pictures": read,
        "label": label,
        "pictures_a_second": round(read / seconds, 1),
        "processor_ms_a_picture": {kind: round(1000 * used / read) for kind, used in spent.items()},
        "processor_share": round(sum(spent.values()) / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    server = Server("--page", str(PAGE))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        result = {
            "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0))},
            "first_visit_mb": first_visit(server, Path(one)),
            "camera": camera(server, Path(other), arguments.pictures),
        }
    server.stop()
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
