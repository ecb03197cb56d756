"""Draw the pictures of the page in docs/server.md: wide, dark with an explanation, on a telephone.

    python benchmarks/page_pictures.py

Needs what the tests marked `browser` need, and `make page`.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from shared import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from chromium import Browser
from served import PAGE, Server

_IMAGES = ROOT / "docs" / "images"
_WIDE, _TELEPHONE = 1100, 390  # pixels
_COLOURS = 256


def main() -> None:
    server = Server("--page", str(PAGE))
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder))
        try:
            browser.emulate(width=_WIDE)
            browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
            browser.open(server)
            browser.drop(_IMAGES / "astronaut.png")
            browser.until(lambda: browser.count(".face"))
            take(browser, "page-wide.png")
            browser.find(".face button").click()
            browser.until(lambda: browser.count(".why table"))
            browser.emulate(width=_TELEPHONE)
            take(browser, "page-phone.png")
            browser.emulate(width=_WIDE, prefers_color_scheme="dark")
            take(browser, "page-dark.png")
        finally:
            browser.close()
            server.stop()


def take(browser: Browser, name: str) -> None:
    """Write a picture of the whole page, without what moves."""
    browser.js("document.activeElement.blur()")
    browser.until(lambda: browser.js("return !document.getAnimations().length"))
    shot = browser.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
    )
    with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as opened:
        picture = opened.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    picture.save(_IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
