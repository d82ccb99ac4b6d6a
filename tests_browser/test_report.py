"""The report in a browser: first screen, linked maps, keyboard, tables, downloads, paper, size and time."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page

from tests_browser.conftest import DESKTOP, PAGES, PHONE, TALL, Open

PANEL = "#panel [aria-live]"
DATA = "JSON.parse(document.getElementById('data').textContent)"
"""The data of the maps, for JavaScript."""


def place(page: Page, selector: str, k: int = 0) -> dict[str, float]:
    """Where an element stands on the page: x, y, width, height."""
    found = page.locator(selector).nth(k).bounding_box()
    assert found is not None, selector
    return dict(found)


def find_cell(page: Page, plot: int, i: int, j: int) -> tuple[float, float]:
    """The middle of a cell of a map, found from where the cursor stands after a choice by keyboard."""
    frame = page.locator(".plot").nth(plot)
    frame.focus()
    page.keyboard.press("Control+Home")
    for key, times in (("ArrowDown", i), ("ArrowRight", j)):
        for _ in range(times):
            page.keyboard.press(key)
    box = frame.locator(".cursor").bounding_box()
    assert box is not None
    page.keyboard.press("Escape")
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def number(row: dict[str, Any], name: str) -> str:
    """A number as the panel writes it."""
    value = float(f"{row[name]:.6g}")
    return str(int(value)) if value.is_integer() else repr(value)


@pytest.mark.parametrize("size", [(1280, 720), DESKTOP, TALL, (1440, 900)])
@pytest.mark.parametrize("name", ["report", "large", "several", "hostile", "long", "failed", "cell"])
def test_the_first_screen_holds_question_finding_both_maps_and_legend(open_page: Open, truth: Any, name: str,
                                                                      size: tuple[int, int]) -> None:
    page = open_page(name, size)
    assert page.locator("h1").inner_text().endswith("?")
    finding = page.locator(".finding").first.locator("p").all_inner_texts()
    assert 1 <= len(finding) <= 3
    assert finding == [" ".join(s.split()) for s in truth[name]["findings"][0][:len(finding)]]
    one, two = (place(page, "figure.lead canvas", k) for k in (0, 1))
    assert page.locator("figure.lead figcaption").all_inner_texts()[:2] == ["TLM relative accuracy",
                                                                         "DM relative accuracy"]
    assert one["y"] == two["y"]
    assert one["x"] + one["width"] <= two["x"]
    shown = ["h1", ".finding", "figure.lead canvas", ".side .hatch", ".side sup", ".side .none"]
    for selector in shown + [".side sub"] * (name in ("report", "several", "failed")):
        box = place(page, selector)
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= size[1], selector
        assert box["x"] + box["width"] <= size[0], selector
    words = page.locator(".side").first.inner_text()
    assert "hatched: works, beyond what natural inputs reach" in words
    assert "star: not to be trusted" in words
    assert "TLM: task loss matching; DM: direct matching; works: a relative accuracy of at least 0.8" in words


@pytest.mark.parametrize("name", ["report", "large", "several", "study", "long", "many", "plain"])
def test_on_a_phone_the_first_map_stands_within_two_screens(open_page: Open, name: str) -> None:
    page = open_page(name, PHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
    box = place(page, "figure.lead canvas")
    assert box["y"] + box["height"] <= 2 * PHONE[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize("way", ["hover", "touch", "focus"])
def test_all_maps_show_the_chosen_cell(open_page: Open, truth: Any, way: str) -> None:
    page = open_page("report", has_touch=True)
    x, y = find_cell(page, 0, 2, 3)
    assert page.locator(PANEL).inner_text() == ""
    if way == "hover":
        page.mouse.move(x, y)
    elif way == "touch":
        page.touchscreen.tap(x, y)
    else:
        page.locator(".plot").first.focus()
        for key in ("Control+Home", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
    words = page.locator(PANEL).inner_text()
    row = next(r for r in truth["report"]["rows"][0] if (r["measure"], r["source"], r["target"]) == (
        "tlm.relative_accuracy", "layer2.0", "layer2.1"))
    assert words.startswith("layer2.0 → layer2.1")
    assert (f"TLM relative accuracy: {number(row, 'value')}, 95 % interval "
            f"[{number(row, 'low')}, {number(row, 'high')}], n = 200") in words
    assert "verdict: artefact: works" in words
    places = [page.locator(".cursor").nth(k).evaluate("c => getComputedStyle(c).transform") for k in (0, 1)]
    assert places[0] == places[1]
    for k in (0, 1):
        assert page.locator(".cursor").nth(k).is_visible()
        assert re.fullmatch(r"[\d.]+ \[[\d.]+, [\d.]+\]", page.locator(".readout").nth(k).inner_text())
    chosen = page.locator(".profile p").all_inner_texts()
    assert chosen == ["source layer2.0 into every target", "every source into target layer2.1"]
    page.keyboard.press("Escape")
    assert page.locator(PANEL).inner_text() == ""
    assert not page.locator(".cursor").first.is_visible()


def test_the_panel_says_null_mark_and_missing_values(open_page: Open) -> None:
    page = open_page("report")
    said = {}
    for label in ("CKA (biased)", "OPD (squared)", "TLM KL"):
        page.locator("figure:not(.lead)", has=page.get_by_text(label, exact=True)).locator(".plot").focus()
        page.keyboard.press("Control+Home")
        said[label] = page.locator(PANEL).inner_text()
    assert "by chance 0.2 ± 0.05; above chance (p = 0.0" in said["CKA (biased)"]
    assert "no value: the representation is constant & <b>says nothing</b>" in said["OPD (squared)"]
    assert "* still improving: by 3.0% <b>" in said["TLM KL"] or "still improving" in said["TLM KL"]


def test_every_value_is_reached_by_keyboard(open_page: Open, truth: Any) -> None:
    page = open_page("small")
    rows = {(r["measure"], r["source"], r["target"]): r for r in truth["small"]["rows"][0]}
    labels: dict[str, str] = {}
    seen = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        focus = page.evaluate("(() => { const e = document.activeElement; return [e.tagName, e.className,"
                              " e.parentElement.open ?? null]; })()")
        if focus[0] == "BODY":
            break
        if focus[0] == "SUMMARY" and focus[2] is False:
            page.keyboard.press("Enter")
        if focus[1] == "plot":
            key = page.evaluate(f"(() => {{ const of = document.activeElement.closest('figure').dataset;"
                                f" return {DATA}.grids[of.grid].maps[of.map].key; }})()")
            labels[key] = page.evaluate("document.activeElement.getAttribute('aria-label')")
            seen |= walk(page, key, rows)
    assert seen == set(rows)
    assert all(label.startswith("Heat map of ") and "3 by 2 cells" in label for label in labels.values())


def walk(page: Page, key: str, rows: dict[tuple[str, str, str], dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Go through the cells of the focused map with the arrow keys; check what is said of each."""
    found = set()
    page.keyboard.press("Control+Home")
    for i in range(3):
        page.keyboard.press("Home")
        for j in range(2):
            words = page.locator(PANEL).inner_text()
            source, target = words.split("\n")[0].split(" → ")
            row = rows[key, source, target]
            assert (number(row, "value") if row["value"] is not None else row["reason"]) in words
            if row["low"] is not None:
                assert f"[{number(row, 'low')}, {number(row, 'high')}]" in words
            found.add((key, source, target))
            if j < 1:
                page.keyboard.press("ArrowRight")
        if i < 2:
            page.keyboard.press("ArrowDown")
    return found


def test_a_map_is_shown_as_a_table(open_page: Open, truth: Any) -> None:
    page = open_page("report")
    button = page.locator("figure.lead button.table").first
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    table = page.locator("figure.lead .values table")
    assert "TLM relative accuracy" in table.locator("caption").inner_text()
    rows = {(r["source"], r["target"]): r for r in truth["report"]["rows"][0]
            if r["measure"] == "tlm.relative_accuracy"}
    columns = table.locator("thead th").all_inner_texts()[1:]
    for line in table.locator("tbody tr").all():
        for target, words in zip(columns, line.locator("td").all_inner_texts(), strict=True):
            row = rows[line.locator("th").inner_text(), target]
            assert words.startswith(f"{number(row, 'value')} [{number(row, 'low')}, {number(row, 'high')}]; ")
            assert ("marked" in words) == bool(row["mark"])
    page.keyboard.press("Enter")
    assert page.locator(".values").count() == 0


@pytest.mark.parametrize("name", ["report", "large", "hostile", "long"])
@pytest.mark.parametrize("script", [True, False])
def test_the_csv_is_the_table(open_page: Open, name: str, script: bool) -> None:
    page = open_page(name, java_script_enabled=script)
    with page.expect_download() as waiting:
        page.locator("a[data-table]").first.click()
    data = Path(waiting.value.path()).read_bytes()
    assert waiting.value.suggested_filename.endswith(".csv" if script else ".csv.gz")
    assert (data if script else gzip.decompress(data)) == (PAGES / f"{name}.csv").read_bytes()


@pytest.mark.parametrize("name", ["report", "hostile", "study"])
def test_a_map_is_taken_away_as_svg(open_page: Open, name: str) -> None:
    page = open_page(name)
    with page.expect_download() as waiting:
        page.locator("button.svg").first.click()
    assert re.fullmatch(r"[\w.-]+\.svg", waiting.value.suggested_filename)
    root = ElementTree.fromstring(Path(waiting.value.path()).read_text())
    tags = [element.tag.rpartition("}")[2] for element in root.iter()]
    assert set(tags) <= {"svg", "title", "rect", "g", "text", "path", "circle"}
    words = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    for label in page.evaluate(f"(() => {{ const d = {DATA};"
                               " return d.grids[0].rows.map(k => d.texts[k].slice(0, 5)); })()"):
        assert any(word.startswith(label) for word in words)
    assert ("hatched: works, beyond what natural inputs reach" in words) == (name != "study")
    hatched = {"report": 30, "hostile": 42, "study": 0}[name]
    assert tags.count("path") == hatched


def test_without_a_script_the_page_says_so_and_has_tables(open_page: Open, truth: Any) -> None:
    page = open_page("report", java_script_enabled=False)
    assert "switched off" in page.locator("noscript p").inner_text()
    cells = page.locator("figure.lead").first.locator("table tbody td").all_inner_texts()
    rows = [r for r in truth["report"]["rows"][0] if r["measure"] == "tlm.relative_accuracy"]
    assert [float(cell.rstrip("*")) for cell in cells] == pytest.approx([r["value"] for r in rows], abs=5e-4)
    assert page.locator("figure.lead").first.locator("td.hatch").count() == 30
    assert not page.locator("button:visible, .maps figure[data-map]:visible, .profile:visible").count()


@pytest.mark.parametrize("name", ["report", "large", "several", "study", "validation", "long", "many"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_paper_it_has_less_than_twelve_pages_and_its_maps(open_page: Open, name: str, scheme: str) -> None:
    page = open_page(name, color_scheme=scheme)
    pdf = page.pdf(format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) < (18 if name == "several" else 12)
    page.emulate_media(media="print", color_scheme=scheme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details.paper:not([open])').length") == 0
    drawn = page.evaluate("""[...document.querySelectorAll('canvas')].filter(c => c.offsetParent).map(c => {
        const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(p.buffer)).size; })""")
    assert all(colours > 3 for colours in drawn)
    assert len(drawn) == page.locator("canvas:visible").count()
    assert not page.locator("#panel").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_the_size_and_the_opening_time_of_a_large_report(open_page: Open) -> None:
    assert (PAGES / "large.html").stat().st_size < 2e6
    times = []
    for _ in range(3):
        page = open_page("large")
        assert page.evaluate("document.querySelectorAll('figure[data-map]').length") >= 70
        assert page.evaluate("document.querySelectorAll('*').length") < 6000
        times.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    # Asked for by the issue; the best of three, because other work may run beside it.
    assert min(times) < 1000


def test_a_resized_window_and_dark_colours_draw_the_maps_again(open_page: Open) -> None:
    page = open_page("report")
    before = place(page, "figure.lead canvas")
    ink = "document.querySelector('figure.lead canvas').toDataURL()"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    assert page.evaluate(ink) != light
    page.set_viewport_size({"width": 380, "height": 800})
    page.wait_for_timeout(500)
    assert place(page, "figure.lead canvas")["width"] < before["width"]
