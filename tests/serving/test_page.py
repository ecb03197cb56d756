"""The page in a real browser: what people see, what leaves the machine, what works without it."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from served import ROOT, Server

from pcnn import Recognizer

pytestmark = pytest.mark.browser
selenium = pytest.importorskip("selenium")

from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PAGE = ROOT / "pcnn" / "serving" / "page"  # of the checkout, where `make page` builds
SECONDS = 120  # for what a busy machine does last
PHOTOGRAPHS = 12
# What its own pages and pictures within pages are called: no network is asked for them.
OF_THE_BROWSER = ("chrome://", "chrome-untrusted://", "data:")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    if not (PAGE / "built" / "manifest.json").is_file():
        pytest.skip("needs the networks of the page: make page")
    running = Server("--page", str(PAGE))
    yield running
    running.stop()


class Browser:
    """A Chromium of its own, with a folder for what it downloads."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in (
            *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
            *("--disable-gpu", "--window-size=1100,900", f"--user-data-dir={folder / 'profile'}"),
            *arguments,
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = Chrome(options, ChromeService(str(DRIVER)))
        self.driver.set_script_timeout(SECONDS)
        self.downloads = folder / "downloads"
        where = {"behavior": "allow", "downloadPath": str(self.downloads)}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)

    def open(self, server: Server) -> None:
        self.driver.get(f"http://127.0.0.1:{server.port}/")
        self.until(lambda: self.js("return document.body.dataset.ready === 'yes'"))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, wanted: Callable[[], Any]) -> Any:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := wanted():
                return found
            time.sleep(0.2)
        raise AssertionError(f"{self.js('return document.body.innerText')}; {self.errors()}")

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def drop(self, path: Path) -> None:
        """Drop a file on the page."""
        self.js(
            """const [name, text] = arguments;
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
            const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
            document.querySelector("#drop").dispatchEvent(event);""",
            path.name,
            base64.b64encode(path.read_bytes()).decode(),
        )

    def downloaded(self, button: str, name: str) -> str:
        self.find(button).click()
        path = self.downloads / name
        self.until(path.is_file)
        return path.read_text(encoding="utf-8")

    def requests(self) -> list[str]:
        """The addresses of all requests since this was last asked."""
        events = [
            json.loads(line["message"])["message"] for line in self.driver.get_log("performance")
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def errors(self) -> list[str]:
        return [
            line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"
        ]

    def close(self) -> None:
        self.driver.quit()


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path)
    yield made
    made.close()


def test_a_dropped_portrait_is_read_and_nothing_leaves(
    server: Server, browser: Browser, astronaut: Path
) -> None:
    browser.open(server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    assert browser.find(".picture h3").text == "astronaut.png: 1 face"
    assert browser.find(".face").get_attribute("data-label") == "happiness"
    assert browser.find("#status").text.startswith("1 face in astronaut.png: happiness ")
    browser.find(".face button").click()
    browser.until(lambda: "Hiding the" in browser.find(".why").text)
    (found,) = json.loads(browser.downloaded("#json", "faces.json"))
    expected = Recognizer("small").predict(astronaut).to_dict()["faces"][0]
    assert found["faces"][0]["box"] == pytest.approx(expected["box"], abs=1)
    table = browser.downloaded("#csv", "faces.csv").splitlines()
    assert table[0].startswith(
        "source,face,label,confidence,x1,y1,x2,y2,detection_score,angle,neutral,"
    )
    assert table[1].startswith("astronaut.png,1,happiness,0.9")
    asked = [url for url in browser.requests() if not url.startswith(OF_THE_BROWSER)]
    own = f"http://127.0.0.1:{server.port}/"
    assert f"{own}worker.js" in asked
    assert [url for url in asked if not url.startswith((own, f"blob:{own}"))] == []
    assert browser.errors() == []


def test_the_page_may_not_send_anything_elsewhere(server: Server, browser: Browser) -> None:
    browser.open(server)
    blocked = browser.driver.execute_async_script(
        """const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        fetch("http://127.0.0.2:9/").catch(() => {});"""
    )
    assert blocked == "http://127.0.0.2:9/"


def test_it_works_offline(server: Server, browser: Browser, astronaut: Path) -> None:
    alone = Server("--page", str(PAGE))
    browser.open(alone)
    browser.until(lambda: browser.js("return document.body.dataset.offline === 'yes'"))
    alone.stop()
    browser.open(alone)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face[data-label=happiness]"))


def test_what_is_no_picture_is_named(server: Server, browser: Browser, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    browser.open(server)
    browser.drop(broken)
    browser.until(lambda: browser.find("#failure").text)
    assert browser.find("#failure").text == ("broken.png: this browser cannot read it as a picture")


def test_everything_is_reached_by_keyboard(
    server: Server, browser: Browser, astronaut: Path
) -> None:
    browser.open(server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    reached = []
    for _ in range(8):
        # Not to the element itself: a file input takes keys for the name of a file.
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        active = browser.driver.switch_to.active_element
        reached.append(
            active.get_attribute("id") or active.get_attribute("aria-label") or active.text
        )
    wanted = ["files", "camera", "json", "csv", "clear", "Why is face 1 read as happiness?"]
    assert [name for name in reached if name in wanted] == wanted


def test_lists_of_files_are_those_that_there_are() -> None:
    kept = (PAGE / "sw.js").read_text()
    names = {path.name for path in PAGE.iterdir() if path.is_file()} - {"index.html", "sw.js"}
    assert all(f'"{name}"' in kept for name in names)


def test_photographs_are_read_as_python_reads_them(
    server: Server, browser: Browser, shared_data: Path, tmp_path: Path
) -> None:
    paths = []
    with tarfile.open(shared_data / "lfw" / "lfw_faces.tar") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                target = tmp_path / Path(member.name).name
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
                paths.append(target)
            if len(paths) == PHOTOGRAPHS:
                break
    browser.open(server)
    browser.find("#files").send_keys("\n".join(map(str, paths)))
    browser.until(lambda: browser.count(".picture") == PHOTOGRAPHS)
    found = json.loads(browser.downloaded("#json", "faces.json"))
    expected = [each.to_dict() for each in Recognizer("small").predict(paths)]
    faces = 0
    for ours, theirs, path in zip(found, expected, paths, strict=True):
        assert ours["source"] == path.name
        assert len(ours["faces"]) == len(theirs["faces"]), path
        for one, other in zip(ours["faces"], theirs["faces"], strict=True):
            faces += 1
            assert one["label"] == other["label"], path
            assert one["scores"] == pytest.approx(other["scores"], abs=0.01), path
            assert one["box"] == pytest.approx(other["box"], abs=1), path
    assert faces >= PHOTOGRAPHS


def test_a_camera_is_read_until_it_is_switched_off(
    server: Server, astronaut: Path, tmp_path: Path
) -> None:
    film = tmp_path / "camera.y4m"
    film.write_bytes(_film(astronaut, 640, 480))
    browser = Browser(
        tmp_path,
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-video-capture={film}",
    )
    try:
        browser.open(server)
        browser.find("#camera").click()
        browser.until(lambda: "happiness" in browser.find("#live-faces").text)
        browser.until(lambda: "pictures a second" in browser.find("#rate").text)
        assert browser.find("#camera").get_attribute("aria-pressed") == "true"
        browser.find("#camera").click()
        browser.until(lambda: not browser.find("#live").is_displayed())
        assert browser.js("return document.querySelector('#video').srcObject === null")
        assert browser.errors() == []
    finally:
        browser.close()


def _film(picture: Path, width: int, height: int) -> bytes:
    """Ten frames of a picture, as a camera's film: YUV4MPEG2, colours halved in both directions."""
    with Image.open(picture) as opened:
        square = opened.convert("YCbCr").resize((height, height))
    frame = Image.new("YCbCr", (width, height), (60, 128, 128))
    frame.paste(square, ((width - height) // 2, 0))
    light, *colours = frame.split()
    half = [plane.resize((width // 2, height // 2)).tobytes() for plane in colours]
    header = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode()
    return header + 10 * (b"FRAME\n" + light.tobytes() + b"".join(half))
