"""Summary of a comparison's verdicts in sentences, for the page and the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from suture.results.cell_verdict import CellVerdicts, judge_methods
from suture.results.measured import Measured
from suture.results.sanity import Verdict, is_lost, is_open, run_sanity_battery


@dataclass(frozen=True, eq=False)
class Findings:
    """Findings of the sanity battery and verdicts of the cells, as sentences.

    Attributes:
        shown: sentences on measures that fail, or that cannot be judged.
        passed: sentences on measures that pass.
        summary: number of measures that pass, in one line; empty if none does.
        gap: see `Verdict`.
        cells: one sentence for each method with verdicts.
        verdict: result of the sanity battery.
        methods: verdicts of the cells by method.
    """

    shown: tuple[str, ...]
    passed: tuple[str, ...]
    summary: str
    gap: str
    cells: tuple[str, ...]
    verdict: Verdict
    methods: dict[str, CellVerdicts]


def summarise_findings(measured: Measured) -> Findings:
    """Summarise the verdicts of a comparison in sentences."""
    verdict, methods = run_sanity_battery(measured), judge_methods(measured)
    rows = verdict.table.to_dict("records")
    # Without a table the only sentence gives the reason, so it is shown.
    show = [is_lost(row) or is_open(row) for row in rows] or [True] * len(verdict.words)
    shown, passed = (tuple(words for words, on in zip(verdict.words, show, strict=True) if on == wanted)
                     for wanted in (True, False))
    finding = ("every layer is most similar to itself" if measured.same_network else
               "every corresponding layer is the most similar one")
    return Findings(shown, passed, f"{len(passed)} of {len(show)} measures: {finding}." if passed else "",
                    verdict.gap, tuple(found.counts for found in methods.values()), verdict,
                    methods)
