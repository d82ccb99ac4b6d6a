"""Settings that change the numbers make another comparison."""

from __future__ import annotations

from typing import Any

import pytest

import suture
from suture import SutureError
from tests.support import tiny
from tests.support.tiny import seeded
from tests.support.windows import IMAGES, LABELS, Windows


def test_a_comparison_in_half_precision_is_near_and_not_the_same() -> None:
    def run(forward: Any) -> Any:
        return suture.compare(tiny.network(), tiny.other(), (tiny.images(60), tiny.labels(60)),
                              methods=["dm"], ood=None, device="cpu", forward=forward)

    exact, half = run("float32"), run("bf16")
    for measure in ("cka", "dm.residual"):
        a, b = exact.matrix(measure).to_numpy(), half.matrix(measure).to_numpy()
        assert a == pytest.approx(b, abs=0.02)
        assert (a != b).any()
    assert half.meta["settings"]["forward"] == "bf16"
    assert exact.meta["key"] != half.meta["key"]
    with pytest.raises(SutureError, match="bf17"):
        run("bf17")


def test_an_override_is_part_of_a_comparisons_key_and_nothing_else_changes() -> None:
    network = seeded(Windows)

    def run(sites: Any) -> Any:
        return suture.compare(network, None, (IMAGES, LABELS), sites=sites, methods=["dm"], indices=["cka"],
                              ood=None, device="cpu")

    plain, same, other = run("blocks.*"), run("blocks.*@map:last"), run(["blocks.0@map", "blocks.1"])
    assert len({r.meta["key"] for r in (plain, same, other)}) == 3
    assert plain.table.equals(same.table)
    assert plain.sources == other.sources
    own, changed = (r.matrix("cka").to_numpy() for r in (plain, other))
    assert own[1, 1] == pytest.approx(changed[1, 1], rel=1e-6)
    assert abs(own[0, 1] - changed[0, 1]) > 1e-3
