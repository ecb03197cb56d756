"""The page in a real browser: what people see, what leaves the machine, what works without it."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from served import PAGE, Server

from pcnn import Recognizer

if TYPE_CHECKING:
    from chromium import Browser

pytestmark = pytest.mark.browser

PHOTOGRAPHS = 12
MOST_LOADED = 15_000_000  # bytes of the first visit: networks, runtime and page
TURNED = ("Aaron_Eckhart_0001.jpg", "AJ_Cook_0001.jpg")
READ = 25  # pictures of a camera


def test_a_dropped_portrait_is_read(page_server: Server, browser: Browser, astronaut: Path) -> None:
    browser.open(page_server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    assert browser.find(".picture h3").text == "astronaut.png: 1 face"
    assert browser.find(".face").get_attribute("data-label") == "happiness"
    assert browser.find("#status").text.startswith("1 face in astronaut.png: happiness ")
    assert browser.count(".face .scores li") == 8
    (found,) = json.loads(browser.downloaded("#json", "faces.json"))
    expected = Recognizer("small").predict(astronaut).to_dict()["faces"][0]
    assert found["faces"][0]["box"] == pytest.approx(expected["box"], abs=1)
    assert list(found["faces"][0]) == list(expected)
    assert found["faces"][0]["quality"] == pytest.approx(expected["quality"], abs=0.02)
    (row,) = csv.DictReader(io.StringIO(browser.downloaded("#csv", "faces.csv")))
    assert list(row)[:4] == ["source", "face", "label", "confidence"]
    assert list(row)[-8:] == list(expected["scores"])
    assert (row["source"], row["face"], row["label"]) == ("astronaut.png", "1", "happiness")
    browser.find("#clear").click()
    assert browser.count(".picture") == 0
    browser.paste(astronaut)
    browser.until(lambda: browser.count(".face[data-label=happiness]"))
    assert browser.errors() == []


def test_why_shows_heat_and_the_face_without_each_region(
    page_server: Server, browser: Browser, astronaut: Path
) -> None:
    browser.open(page_server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    picture = "return document.querySelector('.face canvas').toDataURL()"
    plain = browser.js(picture)
    browser.find(".face button").click()
    browser.until(lambda: browser.count(".why table"))
    assert browser.find(".why p").text.startswith("Hiding the ")
    assert browser.js(picture) != plain
    cells = [
        cell.split(" | ")
        for cell in browser.js(
            "return [...document.querySelectorAll('.why tr')]"
            ".map((row) => [...row.children].map((cell) => cell.textContent).join(' | '))"
        )
    ]
    assert cells[0] == ["region", "the face without it"]
    assert [row[0] for row in cells[1:]] == [
        *("left eye", "right eye", "left cheek", "right cheek", "mouth"),
    ]
    shares = {row[0]: row[1].split(" %")[0] for row in cells[1:]}
    assert shares["left cheek"].startswith("happiness 9")
    assert shares["mouth"] != shares["left cheek"]


def test_all_that_is_asked_for_is_asked_of_its_own_server(
    page_server: Server, tmp_path: Path, astronaut: Path
) -> None:
    from chromium import Browser

    browser = Browser(tmp_path)
    try:
        browser.open(page_server)
        browser.drop(astronaut)
        browser.until(lambda: browser.count(".face"))
        browser.find(".face button").click()
        browser.until(lambda: browser.count(".why table"))
        browser.until(lambda: browser.js("return document.body.dataset.offline === 'yes'"))
        pages = browser.js("return location.origin")
    finally:
        asked = browser.close()
    ours = [each.url for each in asked if each.initiator == pages]
    # What the worker, the runtime's own threads and the service worker fetch is among them.
    for name in ("/worker.js", ".wasm.gz", "/ort.wasm.min.mjs", "/sw.js", "manifest.json"):
        assert any(url.endswith(name) for url in ours), name
    own = (f"{pages}/", f"blob:{pages}/", "data:")
    assert [url for url in ours if not url.startswith(own)] == []


def test_the_page_may_not_send_anything_elsewhere(page_server: Server, browser: Browser) -> None:
    browser.open(page_server)
    blocked = browser.driver.execute_async_script(
        """const done = arguments[0];
        document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
        fetch("http://127.0.0.2:9/").catch(() => {});"""
    )
    assert blocked == "http://127.0.0.2:9/"


def test_it_is_loaded_once_and_works_offline(
    page_server: Server, browser: Browser, astronaut: Path
) -> None:
    alone = Server("--page", str(PAGE))
    browser.open(alone)
    browser.until(lambda: browser.js("return document.body.dataset.offline === 'yes'"))
    alone.stop()  # now all of its log is read
    loaded = alone.sent("other")
    manifest = json.loads((PAGE / "built" / "manifest.json").read_text())
    parts = [*manifest["runtime"].values(), manifest["classifier"], manifest["detector"]]
    assert sum(part["bytes"] for part in parts) < loaded < MOST_LOADED
    browser.driver.refresh()
    browser.until(lambda: browser.js("return document.body.dataset.ready === 'yes'"))
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face[data-label=happiness]"))


def test_what_is_no_picture_is_named(page_server: Server, browser: Browser, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    browser.open(page_server)
    browser.drop(broken)
    browser.until(lambda: browser.find("#failure").text)
    assert browser.find("#failure").text == "broken.png: this browser cannot read it as a picture"


def test_lists_of_files_are_those_that_there_are() -> None:
    kept = (PAGE / "sw.js").read_text()
    names = {path.name for path in PAGE.iterdir() if path.is_file()} - {"index.html", "sw.js"}
    assert all(f'"{name}"' in kept for name in names)


def test_photographs_are_read_as_python_reads_them(
    page_server: Server, browser: Browser, shared_data: Path, tmp_path: Path
) -> None:
    paths: list[Path] = []
    with tarfile.open(shared_data / "lfw" / "lfw_faces.tar") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                content = archive.extractfile(member)
                assert content is not None
                paths.append(tmp_path / Path(member.name).name)
                paths[-1].write_bytes(content.read())
            if len(paths) == PHOTOGRAPHS:
                break
    browser.open(page_server)
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


def test_turned_photographs_are_read_as_python_reads_them(
    page_server: Server, browser: Browser, shared_data: Path, tmp_path: Path
) -> None:
    paths: list[Path] = []
    with tarfile.open(shared_data / "lfw" / "lfw_faces.tar") as archive:
        for name in TURNED:
            content = archive.extractfile(name)
            assert content is not None
            with Image.open(content) as picture:
                for degrees in (45, 90, 180, 270):
                    paths.append(tmp_path / f"{degrees}-{name}".replace(".jpg", ".png"))
                    turned = picture.rotate(
                        -degrees, Image.Resampling.BICUBIC, True, fillcolor=(90, 90, 90)
                    )
                    turned.save(paths[-1])
    browser.open(page_server)
    browser.find("#files").send_keys("\n".join(map(str, paths)))
    for count in range(1, len(paths) + 1):  # each within the time that one may take
        browser.until(lambda count=count: browser.count(".picture") >= count)
    found = json.loads(browser.downloaded("#json", "faces.json"))
    expected = [each.to_dict() for each in Recognizer("small").predict(paths)]
    for ours, theirs, path in zip(found, expected, paths, strict=True):
        assert len(ours["faces"]) == len(theirs["faces"]), path
        for one, other in zip(ours["faces"], theirs["faces"], strict=True):
            assert one["label"] == other["label"], path
            assert one["scores"] == pytest.approx(other["scores"], abs=0.01), path
            assert abs(180 - (180 - one["angle"] + other["angle"]) % 360) < 1, path
            assert one["box"] == pytest.approx(other["box"], abs=1), path
        # And it lies as the photograph does.
        degrees = int(path.name.split("-")[0])
        assert any(
            abs(180 - (180 - face["angle"] + degrees) % 360) < 20 for face in ours["faces"]
        ), path


def test_uncertain_faces_are_called_so(page_server: Server, browser: Browser) -> None:
    browser.open(page_server)
    words, dashed = browser.driver.execute_async_script(
        """const [done] = arguments;
        const face = (confidence) => ({ label: "anger", confidence, box: [0, 0, 9, 9] });
        const faces = [face(0.49), face(0.51)];
        import("./views.js").then(({ boxes, sentence }) => done([
          faces.map((each, i) => sentence(each, i + 1, 2)),
          [...boxes({ width: 20, height: 20, faces }).querySelectorAll("rect")]
            .map((rect) => rect.getAttribute("class")),
        ]));"""
    )
    assert words == ["1: anger 49 % (uncertain)", "2: anger 51 %"]
    assert dashed == ["below", "doubtful", "below", "sure"]


def test_what_hiding_a_part_changes_is_said_in_digits_that_differ(
    page_server: Server, browser: Browser
) -> None:
    browser.open(page_server)
    sentences = browser.driver.execute_async_script(
        """const [done] = arguments;
        const heat = { heat: [0, 0, 0, 0, 0, 0, 0, 1, 0], cells: 3, most: 2 };
        import("./views.js").then(({ heatSentence }) => done([0.994, 0.9991].map((least) =>
          heatSentence({ ...heat, least }, { label: "anger", confidence: 0.9998 }))));"""
    )
    assert sentences == [
        "Hiding the lower middle of the face weakens anger most, to 99.4 %.",
        "Hiding the lower middle of the face weakens anger most, but leaves 99.9 %.",
    ]


def test_labels_that_would_cover_each_other_are_numbers(
    page_server: Server, browser: Browser
) -> None:
    browser.open(page_server)
    texts = browser.driver.execute_async_script(
        """const [done] = arguments;
        const at = (left, top) => (
          { label: "anger", confidence: 0.9, box: [left, top, left + 40, top + 40] });
        const faces = [at(10, 100), at(60, 104), at(300, 102), at(10, 300)];
        import("./views.js").then(({ boxes }) => done(
          [...boxes({ width: 520, height: 400, faces }).querySelectorAll("text")]
            .map((text) => text.textContent)));"""
    )
    assert texts == ["1", "2", "3: anger 90 %", "4: anger 90 %"]


def test_a_camera_is_read_until_it_is_switched_off(
    page_server: Server, astronaut: Path, tmp_path: Path
) -> None:
    from chromium import Browser, film

    film(astronaut, tmp_path / "camera.y4m")
    browser = Browser(tmp_path, camera=tmp_path / "camera.y4m")
    try:
        browser.open(page_server)
        browser.js(
            """window.read = 0;
            new MutationObserver(() => { window.read += 1; })
              .observe(document.querySelector("#live-faces"), { childList: true });"""
        )
        browser.find("#camera").click()
        browser.until(lambda: "happiness" in browser.find("#live-faces").text)
        browser.until(lambda: "pictures a second" in browser.find("#rate").text)
        assert browser.find("#camera").get_attribute("aria-pressed") == "true"
        first = browser.js("return window.read")  # how quickly: benchmarks/bench_page.py
        browser.until(lambda: browser.js("return window.read") >= first + READ)
        browser.find("#camera").click()
        browser.until(lambda: not browser.find("#live").is_displayed())
        assert browser.js("return document.querySelector('#video').srcObject === null")
        assert browser.errors() == []
    finally:
        browser.close()
