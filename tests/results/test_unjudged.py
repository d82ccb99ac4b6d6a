"""Findings of comparisons with few cells, without verdicts, or without values: what is unknown is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from suture.results.findings import summarise_findings
from tests.results.test_findings import mark
from tests.support.comparisons import of_values, one_cell
from tests.support.synthetic import comparison


def lose(made, lost, reason="it broke"):
    """The comparison in which no stitched network into the first so many target sites has a value."""
    table = made.table.copy()
    at = table["target"].isin(made.targets[:lost]) & table["measure"].str.contains(".", regex=False)
    table.loc[at, ["value", "low", "high"]] = np.nan
    table.loc[at, "reason"], table.loc[at, "mark"] = reason, ""
    return dataclasses.replace(made, table=table)


@pytest.mark.parametrize("detectors", [("maha",), ()])
def test_cells_without_a_value_are_unknown_and_not_counted_as_not_working(detectors):
    made = comparison(detectors=detectors)
    found, whole = (" ".join(summarise_findings(m).all) for m in (lose(made, 1), lose(made, 4)))
    assert found.count("4 without a value") == 2
    if detectors:
        assert "12 of 12 measured cells" in found
        assert whole.count("unknown: none of 16 cells has a value") == 2
        assert "it broke" in whole
    else:
        assert "by direct matching in 3 of 12 cells" in found
    assert "Next: train" not in whole


def test_stitched_networks_without_natural_ranges_are_counted_and_artefacts_said_to_be_unknown():
    made = comparison()
    values = {m: made.matrix(f"{m}.relative_accuracy", "low").to_numpy() >= 0.8 for m in ("tlm", "dm")}
    first = summarise_findings(mark(made, "tlm", [("layer1.0", "layer1.0")])).sentences[0]
    works = int(values["tlm"].sum()) - int(values["tlm"][0, 0])
    assert f"task loss matching in {works} of 15 cells (1 not converged)" in first
    assert f"direct matching in {int(values['dm'].sum())} of 16 cells" in first
    assert "unknown" in first


@pytest.mark.parametrize(("made", "expected"), [
    (one_cell(), "CKA (biased) of a into b is 0.5;"),
    (one_cell(value=np.nan, reason="it broke"), "No cell has a value: it broke"),
    (of_values("opd", [[0.5, 0.2]], same_network=False),
     "Most similar by OPD (squared): l0 into l1 (0.2; all cells 0.2 to 0.5)")])
def test_few_cells_have_a_finding_too(made, expected):
    assert summarise_findings(made).sentences[0].startswith(expected)


def test_one_cell_has_its_verdict_and_reason():
    made = comparison(1, 1, detectors=("maha",), same_network=False)
    found = summarise_findings(made).sentences
    for sentence, method in zip(found, ("tlm", "dm"), strict=False):
        for what in ("word", "reason"):
            assert made.cells(method, what).iloc[0, 0] in sentence


def test_a_long_name_leaves_room_for_the_finding():
    made = comparison(detectors=("maha",))
    names = {name: f"{'encoder.' * 40}{name}" for name in made.sources}
    long = dataclasses.replace(made, sources=tuple(names.values()), targets=tuple(names.values()),
                               table=made.table.replace({"source": names, "target": names}))
    assert max(map(len, summarise_findings(long).all)) < 330
