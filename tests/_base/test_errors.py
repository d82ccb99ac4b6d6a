"""Libraries that are imported when they are needed."""

from __future__ import annotations

import json

from suture._base import import_optional


def test_a_library_by_its_name() -> None:
    assert import_optional("json", "vision", "a test") is json
