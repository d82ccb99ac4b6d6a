"""Names of sites, and how they say what is taken."""

from __future__ import annotations

import pytest

from suture import SutureError
from suture.networks.sites import Site


@pytest.mark.parametrize(("written", "site"), [
    ("blocks.3@tokens:1", Site("blocks.3", taken="tokens:1")),
    ("a#2:x@map:last", Site("a", 2, "x", "map:last")), ("a:1@vector", Site("a", 0, 1, "vector")),
    ("a@tokens:1,14x14", Site("a", taken="tokens:1,14x14")), ("a", Site("a")),
])
def test_a_site_says_how_it_is_taken_and_tables_leave_it_out(written: str, site: Site) -> None:
    assert Site.parse(written) == site
    assert site.written == written
    assert str(site) == written.split("@")[0]


@pytest.mark.parametrize("taken", ["token", "tokens:", "tokens:a", "tokens:1,14", "map:first",
                                   "vector:2", "tokens:-1"])
def test_unknown_ways_to_take_a_site_are_refused_at_once(taken: str) -> None:
    with pytest.raises(SutureError, match=f"tokens:1,14x14 .*, got '{taken}'"):
        Site.parse(f"blocks.3@{taken}")
