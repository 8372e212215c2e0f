"""Every control of the page in a true browser: Chromium without a screen, if it is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nogs.config.stages import Report
from nogs.stages.report import draw_report
from reported import T, make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READY = "document.documentElement.classList.contains('plays') && document.getElementById('threshold-text').textContent"
SOON_MS = 2000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on the PATH"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("browser") / "run", methods=("ram", "ps-nogs", "gain", "path"))
    return draw_report(Report(run))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Any, report: Path, complaints: list[str]) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if _is_outside(request.url) else None)
    opened.goto(report.as_uri())
    opened.wait_for_function(READY, timeout=SOON_MS)
    yield opened
    context.close()
    assert complaints == []


def _is_outside(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def drawn(page: Any, side: str) -> str:
    """The pixels of a panel."""
    return str(page.evaluate(f"document.getElementById('canvas-{side}').toDataURL()"))


def test_every_control_changes_what_it_is_for(page: Any) -> None:
    seen = {drawn(page, "left")}

    def redrawn(side: str = "left") -> bool:
        now = drawn(page, side)
        return now not in seen and not seen.add(now)  # type: ignore[func-returns-value]

    page.check("input[name=picture][value='1']")
    assert redrawn()
    page.check("#map")
    assert redrawn()
    page.fill("#step", "2")
    assert redrawn()
    assert page.text_content("#step-text") == f"2 of {T}"
    assert page.text_content("#said").startswith(f"Glimpse 2 of {T}. PS-NOGS: ")
    page.select_option("#method-left", "gain")
    assert redrawn()
    assert page.text_content("#unit-left") == "map: predicted gain up to 0.3 nats"
    page.select_option("#method-right", "designed")
    assert redrawn("right")
    page.check("#completed")
    assert page.locator("#completions-list img").count() == 2
    assert "first 1 glimpse of the designed" in page.text_content("#completions-text")
    page.check("input[name=picture][value='4']")
    assert page.text_content("#answer-right") == "no sequence was designed for this image"
    assert page.locator("#completions-list img").count() == 0


def test_the_threshold_moves_figures_dots_and_stops(page: Any, report: Path) -> None:
    curves = json.loads((report.parent / "evaluation" / "results.json").read_text())["stopping_by_threshold"]
    dot = "#rule-confidence circle[data-method=ram]"
    before = page.get_attribute(dot, "cx")
    page.fill("#threshold", "2")
    assert page.text_content("#threshold-text") == "above 80 %"
    row = page.locator("#rule-confidence tr[data-method=ram] td").all_text_contents()
    _, glimpses, accuracy, _, _ = curves["ram"]["confidence"][2]
    assert (row[0], row[2]) == (f"{glimpses:.2f}", f"{100 * accuracy:.1f} %")
    assert page.get_attribute(dot, "cx") < before
    assert page.text_content("#unit-left") == "stops after glimpse 2"
    assert "above 80 %. RAM: 2.20 glimpses" in page.text_content("#threshold-said")
    for rule in ("map", "eig", "accuracy", "fixed"):
        page.select_option("#rule", rule)
        assert page.locator(".rule:visible").get_attribute("id") == f"rule-{rule}"
        page.fill("#threshold", "0")
        assert "1.00" in page.locator(f"#rule-{rule} td").all_text_contents()


def test_all_is_reached_and_moved_by_keys(page: Any) -> None:
    page.focus("input[name=picture][value='0']")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("input[name=picture][value='1']")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        if reached[-1] == "step":
            page.keyboard.press("ArrowLeft")
        if reached[-1] in ("map", "completed"):
            page.keyboard.press("Space")
    assert reached == ["step", "map", "completed", "method-left", "method-right", "rule", "threshold", reached[-1]]
    assert page.text_content("#step-text") == f"{T - 1} of {T}"
    assert page.is_checked("#map")
    assert page.is_visible("#completions")
    page.focus("#threshold")
    page.keyboard.press("Home")
    assert page.text_content("#threshold-text") == "above 0 %"


def test_the_accessibility_tree_names_every_control(page: Any) -> None:
    for role, name in (
        ("radio", "Test image 1: [/bold] circle"),
        ("slider", "Glimpse"),
        ("slider", "Threshold"),
        ("checkbox", "Map behind the glimpse"),
        ("checkbox", "Completions"),
        ("combobox", "First method"),
        ("combobox", "Second method"),
        ("combobox", "An image stops by"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert page.get_attribute("#step", "aria-valuetext") == f"glimpse {T} of {T}"
    assert page.get_attribute("#threshold", "aria-valuetext") == "above 100 %"
    assert page.get_attribute("#canvas-left", "aria-label").startswith(f"PS-NOGS: glimpse {T} at row ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(browser: Any, report: Path, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, color_scheme=scheme)
    page = context.new_page()
    page.goto(report.as_uri())
    page.wait_for_function(READY, timeout=SOON_MS)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for selector in ("#step", "#threshold", "#rule", "#method-left"):
        assert page.locator(selector).bounding_box()["height"] >= 24
    context.close()


def test_print_and_no_script_show_the_static_page(browser: Any, report: Path, page: Any) -> None:
    assert not page.is_visible("#answers")
    page.emulate_media(media="print")
    assert page.is_visible("#answers")
    assert page.is_visible("#rule-fixed")
    assert not page.is_visible("#step")
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(report.as_uri())
    assert plain.is_visible("#answers")
    assert not plain.is_visible("#player")
    context.close()
