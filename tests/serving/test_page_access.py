"""The page for those who do not see well, use no mouse, or want no motion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from served import ROOT, Server

if TYPE_CHECKING:
    from chromium import Browser

pytestmark = pytest.mark.browser

AXE = ROOT / "build" / "axe.min.js"  # from `make axe`
SCHEMES = ("light", "dark")
TELEPHONE = 390


def faults(browser: Browser) -> list[dict[str, Any]]:
    """What axe-core finds, of every impact: its rule, impact and elements."""
    browser.js(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = browser.driver.execute_async_script(
        "const [done] = arguments; axe.run().then(done, (error) => done({ error: `${error}` }));"
    )
    assert len(found["passes"]) > 10, json.dumps(found)[:500]
    return [
        {"id": each["id"], "impact": each["impact"], "nodes": [n["html"] for n in each["nodes"]]}
        for each in found["violations"]
    ]


@pytest.mark.parametrize("width", [1100, TELEPHONE])
def test_axe_finds_no_fault(
    page_server: Server, browser: Browser, astronaut: Path, width: int
) -> None:
    if not AXE.is_file():
        pytest.skip("needs axe-core: make axe")
    browser.emulate(width=width)
    browser.open(page_server)
    assert faults(browser) == []  # before there are results
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    browser.find(".face button").click()
    browser.until(lambda: browser.count(".why table"))
    browser.js(
        """document.querySelector("#failure").textContent = "Something failed.";
        for (const name of ["#live", "#loading"]) document.querySelector(name).hidden = false;"""
    )
    for scheme in SCHEMES:
        browser.emulate(width=width, prefers_color_scheme=scheme)
        assert faults(browser) == [], scheme


def test_axe_sees_a_fault_that_is_there(page_server: Server, browser: Browser) -> None:
    if not AXE.is_file():
        pytest.skip("needs axe-core: make axe")
    browser.open(page_server)
    browser.js("document.querySelector('.private').style.color = '#ddd'")
    browser.js("document.querySelector('#camera').textContent = ''")
    assert {each["id"] for each in faults(browser)} == {"button-name", "color-contrast"}


def test_everything_is_reached_by_keyboard(
    page_server: Server, browser: Browser, astronaut: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page_server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    reached = [browser.press(Keys.TAB) for _ in range(7)]
    assert reached == [
        *("Skip to the results", "files", "camera", "json", "csv", "clear"),
        "Why is face 1 read as happiness?",
    ]
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.js(outline) == "solid"
    browser.press(Keys.ENTER)
    browser.until(lambda: browser.count(".why table"))


def test_the_results_can_be_skipped_to(page_server: Server, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page_server)
    browser.press(Keys.TAB)
    assert browser.find(".skip").rect["x"] >= 0  # it shows itself once it has the focus
    assert browser.press(Keys.ENTER) == "results"


def test_nothing_moves_for_those_who_want_no_motion(
    page_server: Server, browser: Browser, astronaut: Path
) -> None:
    browser.open(page_server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    moving = """return [...document.querySelectorAll("*")].filter((element) => {
      const { transitionDuration, animationName } = getComputedStyle(element);
      return parseFloat(transitionDuration) > 0 || animationName !== "none";
    }).length;"""
    browser.emulate(prefers_reduced_motion="no-preference")
    assert browser.js(moving) > 0
    browser.emulate(prefers_reduced_motion="reduce")
    assert browser.js(moving) == 0


def test_a_telephone_shows_it_without_scrolling_sideways(
    page_server: Server, browser: Browser, astronaut: Path
) -> None:
    browser.emulate(width=320)
    browser.open(page_server)
    browser.drop(astronaut)
    browser.until(lambda: browser.count(".face"))
    browser.find(".face button").click()
    browser.until(lambda: browser.count(".why table"))
    assert browser.js("return document.documentElement.scrollWidth") <= 320
    small = """return [...document.querySelectorAll("button, .button")]
      .filter((each) => each.getClientRects().length && each.getBoundingClientRect().height < 24)
      .map((each) => each.textContent);"""
    assert browser.js(small) == []
