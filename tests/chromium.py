"""A Chromium that tests drive, and what it was asked for."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from served import Server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 120  # for what a busy machine does last
_FILM_SIZE = 640, 480


class Asked(NamedTuple):
    """A request as the browser's network stack saw it.

    initiator: the origin whose page or worker asked; "" for the browser itself.
    """

    url: str
    initiator: str


class Browser:
    """A Chromium of its own, with a folder for what it downloads.

    camera: a film of its camera, see `film`; None for no camera.
    """

    def __init__(self, folder: Path, *, camera: Path | None = None) -> None:
        self._folder = folder
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        arguments = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"]
        arguments += ["window-size=1100,900", f"user-data-dir={folder / 'profile'}"]
        arguments += [f"log-net-log={folder / 'net.json'}"]
        if camera is not None:
            arguments += ["use-fake-ui-for-media-stream", "use-fake-device-for-media-stream"]
            arguments += [f"use-file-for-fake-video-capture={camera}"]
        for argument in arguments:
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._service = ChromeService(str(DRIVER))
        self.driver = Chrome(options, self._service)
        self.driver.set_script_timeout(SECONDS)
        self.downloads = folder / "downloads"
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def open(self, server: Server) -> None:
        """Open the page and wait until its networks are there."""
        self.driver.get(f"http://127.0.0.1:{server.port}/")
        self.until(lambda: self.js("return document.body.dataset.ready === 'yes'"))

    def emulate(self, *, width: int = 1100, height: int = 900, **media: str) -> None:
        """Give the page another size and media features, such as prefers_color_scheme="dark"."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": v} for name, v in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, wanted: Callable[[], Any]) -> Any:
        """Wait until something is true, and return it."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := wanted():
                return found
            time.sleep(0.2)
        raise AssertionError(f"{self.js('return document.body.innerText')}; {self.errors()}")

    def find(self, selector: str) -> Any:
        """The first element of a selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        """How many elements a selector has."""
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def press(self, *keys: str) -> str:
        """Press keys; the name of the element that then has the focus.

        Not sent to the element itself: a file input takes keys for the name of a file.
        """
        ActionChains(self.driver).send_keys(*keys).perform()
        active = self.driver.switch_to.active_element
        name = active.get_attribute("id") or active.get_attribute("aria-label") or active.text
        return str(name)

    def drop(self, path: Path) -> None:
        """Drop a file on the page."""
        self._give(path, '"drop", { dataTransfer: given', "DragEvent")

    def paste(self, path: Path) -> None:
        """Paste a file into the page."""
        self._give(path, '"paste", { clipboardData: given', "ClipboardEvent")

    def _give(self, path: Path, beginning: str, event: str) -> None:
        self.js(
            f"""const [name, text] = arguments;
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], name, {{ type: "image/png" }}));
            const event = new {event}({beginning}, bubbles: true, cancelable: true }});
            document.querySelector("#drop").dispatchEvent(event);""",
            path.name,
            base64.b64encode(path.read_bytes()).decode(),
        )

    def downloaded(self, button: str, name: str) -> str:
        """The text of the file that a button downloads."""
        self.find(button).click()
        path = self.downloads / name
        self.until(path.is_file)
        return path.read_text(encoding="utf-8")

    def errors(self) -> list[str]:
        """What the console complained of."""
        return [
            line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"
        ]

    def processor_seconds(self) -> dict[str, float]:
        """Processor time of the browser's processes so far, by their kind: renderer, …"""
        parents, seconds, kinds = {}, {}, {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
                words = path.with_name("cmdline").read_text(errors="replace")
            except OSError:  # it has just ended
                continue
            pid = int(path.parent.name)
            parents[pid] = int(fields[1])
            seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            kinds[pid] = (re.findall(r"--type=([\w-]+)", words) or ["browser"])[0]
        assert self._service.process is not None
        ours = {self._service.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        spent: Counter[str] = Counter()
        for pid in ours:
            spent[kinds[pid]] += seconds[pid]
        return dict(spent)

    def close(self) -> list[Asked]:
        """End it; all requests that it made, those of workers too."""
        self.driver.quit()
        asked = []
        for line in (self._folder / "net.json").read_text(encoding="utf-8").splitlines():
            if '"initiator"' in line and '"url"' in line:
                params = json.loads(line.rstrip().rstrip(",").removesuffix("]}"))["params"]
                known = params["initiator"] != "not an origin"
                asked.append(Asked(params["url"], params["initiator"] if known else ""))
        return asked


def film(picture: Path, target: Path) -> None:
    """Write ten frames of a square picture as a camera's film: YUV4MPEG2, colours halved."""
    width, height = _FILM_SIZE
    with Image.open(picture) as opened:
        square = opened.convert("YCbCr").resize((height, height))
    frame = Image.new("YCbCr", (width, height), (60, 128, 128))
    frame.paste(square, ((width - height) // 2, 0))
    light, *colours = frame.split()
    half = [plane.resize((width // 2, height // 2)).tobytes() for plane in colours]
    header = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode()
    target.write_bytes(header + 10 * (b"FRAME\n" + light.tobytes() + b"".join(half)))
