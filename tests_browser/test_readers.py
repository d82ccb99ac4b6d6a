"""Pages of other kinds, and other readers: no script, narrow windows, paper, forced colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_browser.conftest import TALL, Open
from tests_browser.test_report import PANEL, find_cell, place


@pytest.mark.parametrize("size", [(1280, 720), TALL])
@pytest.mark.parametrize("name", ["plain", "huge", "study", "many"])
def test_the_first_screen_of_other_pages_holds_the_finding_and_its_maps(open_page: Open, name: str,
                                                                        size: tuple[int, int]) -> None:
    page = open_page(name, size)
    finding = page.locator(".finding").first.locator("p").all_inner_texts()
    assert 1 <= len(finding) <= 3
    assert not finding[0].startswith("Next:")
    for selector in ("h1", ".finding", "figure.lead canvas", ".side .none"):
        box = place(page, selector)
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= size[1], selector


@pytest.mark.parametrize("name", ["huge", "many"])
def test_without_a_script_a_large_map_is_a_picture(open_page: Open, name: str) -> None:
    page = open_page(name, java_script_enabled=False)
    assert place(page, "figure.lead img")["width"] > 200
    assert page.locator("figure.lead img").first.get_attribute("alt")


@pytest.mark.parametrize("name", ["long", "hostile", "many", "report"])
@pytest.mark.parametrize("script", [True, False])
def test_nothing_is_wider_than_a_narrow_window_or_paper(open_page: Open, name: str, script: bool) -> None:
    page = open_page(name, (320, 256), java_script_enabled=script)  # 1280 pixels at 400 %
    if script:
        page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        page.locator(".plot").first.focus()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 700, "height": 900})  # A4 within its margins
    page.emulate_media(media="print")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_colours_that_mean_something_stay_where_a_reader_forces_colours(open_page: Open) -> None:
    page = open_page("report", forced_colors="active")
    for selector in (".side .sample.hatch", ".side .bar"):
        ground = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundImage")
        assert "gradient" in ground
        assert page.locator(selector).first.evaluate("e => getComputedStyle(e).forcedColorAdjust") == "none"


def test_a_pointer_says_nothing_aloud_and_keys_do(open_page: Open) -> None:
    page = open_page("report")
    x, y = find_cell(page, 0, 2, 3)
    page.mouse.move(x, y)
    assert page.locator("#panel [role=group]").get_attribute("aria-live") == "off"
    page.locator(".plot").first.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel [role=group]").get_attribute("aria-live") == "polite"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowUp")  # goes on from the cell that was left
    assert page.locator(PANEL).inner_text().startswith("layer1.1 → layer2.0")


def test_numbers_stay_within_their_cells(open_page: Open) -> None:
    page = open_page("report")
    with page.expect_download() as waiting:
        page.locator("figure:not(.lead)", has=page.get_by_text("DM cross-entropy gap", exact=True)).locator(
            "button.svg").click()
    text = Path(waiting.value.path()).read_text()
    boxes = page.evaluate("""text => { const holder = document.createElement('div');
        document.body.append(holder);
        holder.replaceChildren(new DOMParser().parseFromString(text, 'image/svg+xml').documentElement);
        const found = [...holder.querySelectorAll('g text')].filter(t => /^-?[\\d.]+$/.test(t.textContent))
            .map(t => t.getBBox().width);
        holder.remove(); return found; }""", text)
    assert len(boxes) == 36
    assert max(boxes) <= 44


def test_the_command_is_copied_alone(open_page: Open) -> None:
    page = open_page("report")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("button.copy", has_text="Copy command").click()
    page.wait_for_timeout(200)
    assert page.evaluate("navigator.clipboard.readText()") == "suture demo --fast"
    page.locator("button.copy", has_text="Copy all").click()
    page.wait_for_timeout(200)
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert "command: suture demo --fast" in copied
    assert "seed: 0" in copied
