"""What is said of a comparison in a few sentences and a table."""

from __future__ import annotations

import dataclasses

from suture.results.report import page
from suture.results.report.page_sections import tabulate_quality
from suture.results.summary import summarise_findings
from tests.support.synthetic import comparison


def test_quality_that_is_not_there():
    given = comparison(detectors=("maha",))
    ood = given.meta["ood"]
    nothing = [{"auxiliary": None, "auxiliary_one_sided": None, "unseen": None, "unseen_one_sided": None}] * 4
    bare = dataclasses.replace(given, meta=given.meta | {"ood": {
        "verdict": "maha", "thresholds": ood["thresholds"], "quality": {"maha": nothing}}})
    assert [text for _, cells in tabulate_quality(bare)[0]["rows"] for text, _ in cells] == ["–"] * 16
    assert "no auxiliary data test the detector maha at this site" in page.render_page([bare])
    assert tabulate_quality(comparison()) == []


def test_findings_tell_what_is_wrong_from_what_is_not():
    given = comparison()
    found, words = summarise_findings(given), given.verdict().words
    assert sorted((*found.shown, *found.passed)) == sorted(words)
    assert found.passed
    assert found.summary == (f"{len(found.passed)} of {len(words)} measures: every layer is most similar to "
                             "itself.")
    assert all(sentence.startswith(("TLM", "OPD")) for sentence in found.shown)
    assert found.cells == ()
    strangers = summarise_findings(comparison(same_network=False, same_architecture=False))
    assert (len(strangers.shown), strangers.passed, strangers.summary) == (1, (), "")
    one = dataclasses.replace(given, table=given.table[given.table["measure"] == "dm.residual"])
    assert summarise_findings(one).summary == "1 of 1 measures: every layer is most similar to itself."
    twins = comparison(same_network=False)
    assert summarise_findings(twins).summary.endswith("measures: every corresponding layer is the "
                                                      "most similar one.")
