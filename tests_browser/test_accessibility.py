"""No serious or moderate finding of axe-core, in light, in dark and on a phone."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests_browser.conftest import DESKTOP, PHONE, Open

LOOKS: dict[str, dict[str, Any]] = {
    "light": {}, "dark": {"color_scheme": "dark"},
    "zoomed": {"size": (320, 256)}, "forced": {"forced_colors": "active"},
    "phone": {"size": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["report", "several", "study", "validation", "hostile", "long", "failed",
                                  "cell", "many"])
def test_axe_finds_nothing(open_page: Open, name: str, look: str) -> None:
    page = open_page(name, **{"size": DESKTOP, **LOOKS[look]})
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    if page.locator(".plot").count():
        page.locator(".plot").first.focus()
        page.keyboard.press("ArrowRight")
        page.locator("button.table").first.click()
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"]) for v in found
            if v["impact"] in ("moderate", "serious", "critical")] == []
