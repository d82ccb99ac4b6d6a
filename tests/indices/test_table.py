"""Names of indices: what may be written, and what stands in the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import suture
from suture import SutureError, indices
from suture.indices import GROUPS, INDICES, chosen
from suture.numbers import measures
from suture.results.drawing.files import list_files
from tests.support import tiny
from tests.support.matrices import compared

PLAIN = [name for name in INDICES if name != "cka_minibatch"]


def names_of(given: Any) -> list[str]:
    return [r.name for r in chosen(given)]


@pytest.mark.parametrize(("given", "wanted"), [
    ("cka", ["cka"]), (["cka", "cka", "cka@stitch"], ["cka"]), ("svcca:0.9", ["svcca:0.9"]),
    ("svcca:0.99", ["svcca"]), ("gulp:0.1@pool", ["gulp:0.1@pool"]),
    (["opd@pool", "cka"], ["opd@pool", "cka"]), ("jaccard:3", ["jaccard:3"]),
    (["svcca:0.9", "svcca", "svcca:.9"], ["svcca:0.9", "svcca"]), ((), []), (INDICES["opd"], ["opd"]),
    ("default", list(indices.DEFAULT)), ("moments", list(GROUPS["moments"])), ("rows", list(GROUPS["rows"])),
    ("all", PLAIN), ("all@pool", [f"{n}@pool" for n in PLAIN]),
    ("default@paper", [f"{n}@paper" for n in ("cka", "pwcca", "pwcca_target", "opd")]),
    ("all@flatten", ["cka@flatten", "cka_debiased@flatten"]),
    ("cka_minibatch@flatten", ["cka_minibatch@flatten"]),
    (["cka@flatten", "moments@flatten"], ["cka@flatten", "cka_debiased@flatten"]),
    (["svcca:1", "svcca:0.9999999"], ["svcca:1", "svcca:0.9999999"]),
])
def test_what_may_be_written(given: Any, wanted: list[str]) -> None:
    assert names_of(given) == wanted


def test_every_index_stands_once_and_the_groups_part_the_table() -> None:
    assert sorted(GROUPS["moments"] + GROUPS["rows"]) == sorted(GROUPS["all"])
    assert {n for n, i in INDICES.items() if "flatten" in i.alignments} == {"cka", "cka_debiased",
                                                                             "cka_minibatch"}
    for name, index in INDICES.items():
        assert measures.get_measure(name) == index.measure
        low, high = index.measure.native
        assert low <= index.measure.low < index.measure.high <= high
        assert index.source
        assert index.formula
        if index.argument is not None:
            assert index.at(index.argument.default).name == name


@pytest.mark.parametrize(("given", "words"), [
    ("kca", "unknown index 'kca'; nearest: cka"), ("cka@pol", "unknown alignment 'pol'; nearest: pool"),
    ("cka@", "unknown alignment ''"), ("@pool", "unknown index ''"),
    ("cka:3", "index 'cka' takes no number, got '3'"),
    ("svcca:2", "variance of index 'svcca' to be a number from 0.01 to 1, got '2'; write svcca:0.99"),
    ("svcca:", "got ''; write svcca:0.99"), ("svcca:nan", "got 'nan'"), ("svcca:inf@pool", "got 'inf'"),
    ("jaccard:2.5", "a whole number from 1 to 10000, got '2.5'"), ("jaccard:0", "got '0'"),
    ("gulp:x", "got 'x'"),
    ("jaccard@flatten", "the alignment 'flatten' offers, got 'jaccard'; write jaccard@pool"),
    ("svcca:0.9@paper", "the alignment 'paper' offers, got 'svcca:0.9'; write svcca:0.9@pool"),
    ("cka_minibatch", "write cka_minibatch@flatten"), ("cka_minibatch@pool", "write cka_minibatch@flatten"),
    ("rows@flatten", "a group with indices that the alignment 'flatten' offers, got 'rows'"),
    ("rows@paper", "got 'rows'; write all@paper"), ("all:3", "got the group in 'all:3'; write 'all'"),
    (None, "expected indices by name, entries or functions, got None; write () for none"), (5, "got 5"),
    ([5], "got 5"), (["cka", None], "got None"), (b"cka", "got b'cka'"),
])
def test_what_may_not_be_written_is_refused_in_one_line(given: Any, words: str) -> None:
    for refuse in (chosen, compared):
        with pytest.raises(SutureError) as e:
            refuse(given)
        assert words in str(e.value)
        assert "\n" not in str(e.value)


VARIANTS = ["cka", "svcca:0.9", "svcca:0.8@pool", "opd@pool", "cka@flatten", "cka@paper", "jaccard:3@pool"]


def test_tables_maps_and_pages_know_variants(tmp_path: Path) -> None:
    network = tiny.network()
    result = suture.compare(network, None, *tiny.data(), indices=VARIANTS, methods=[],
                            device="cpu", jackknife=5)
    assert result.measures == measures.sort_measures(VARIANTS)
    for name in VARIANTS:
        entry = measures.get_measure(name)
        ax = result.plot(name, Figure().add_subplot())
        assert ax.images[0].get_clim() == (entry.low, entry.high)
        assert entry.label in ax.get_title()
    assert set(result.verdict().table["measure"]) == set(VARIANTS)
    html = result.report(tmp_path / "report.html").read_text()
    assert all(measures.get_measure(name).label in html for name in VARIANTS)
    assert len({f for f in list_files(result) if "svcca" in f and f.endswith("png")}) == 2
    result.save(tmp_path / "kept")
    assert suture.load(tmp_path / "kept").equals(result)
