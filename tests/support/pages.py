"""Pages of comparisons that were never computed, each rendered once."""

from __future__ import annotations

from functools import cache
from typing import Any

from suture.results import page
from tests.support.synthetic import comparison


@cache
def render(**kind: Any) -> str:
    """The page of `synthetic.comparison(**kind)`."""
    return page.render_page([comparison(**kind)])
