"""A dry run, without a command line."""

from __future__ import annotations

import pytest

import suture
from tests.support import tiny


def test_a_dry_run_tells_sites_memory_and_time() -> None:
    data = (tiny.images(60), tiny.labels(60))
    found = suture.dry_run(tiny.network(), tiny.other(), data, methods=["dm", "tlm"],
                           tlm=suture.TaskRecipe(epochs=7), ood=None, device="cpu", names=("a", "b"))
    assert [str(i.site) for i in found.source] == ["block1", "block2"]
    assert found.examples == (60, 60)
    assert found.state > 8 * (3 + 4) ** 2
    assert set(found.seconds) == {"moments", "dm", "tlm"}
    assert all(s is not None and s > 0 for s in found.seconds.values())
    unknown = suture.dry_run(tiny.network(), None, tiny.batches(*data), methods=["dm"],
                             ood=None, device="cpu")
    assert unknown.examples == (None, None)
    assert set(unknown.seconds.values()) == {None}
    with pytest.raises(suture.SutureError, match="folds"):
        suture.dry_run(tiny.network(), None, data, folds=3)
