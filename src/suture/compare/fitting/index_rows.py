"""The rows, arrays and notes of structural indices, for networks and for arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suture.compare.records import Findings, ScoreRow, SharedSetup, pack_statistics, write_rows
from suture.compare.scoring.nulls import collect_nulls
from suture.indices import Value
from suture.numbers import Estimate, NumericalError
from suture.representations import Accumulators, Cell


def describe_indices(setup: SharedSetup, accumulators: Accumulators,
                     published: Mapping[Cell, Mapping[str, Value]], counts: Mapping[str, int]) -> Findings:
    """Return the findings that need no network: indices, spectra of the sites, notes."""
    settings, rows = setup.settings, []
    values: dict[Cell, dict[str, Value]] = {}
    if settings.requests:
        values = accumulators.compute_all_values(setup.cells, settings.tell_progress, setup.keeper)
    for i, j in setup.cells:
        n = accumulators.count_rows(i, j)
        for name, v in (values.get((i, j), {}) | dict(published.get((i, j), {}))).items():
            rows.append(ScoreRow(i, j, name, Estimate(v.value, v.low, v.high, v.reason),
                                 n.get(name, counts.get("n_paper", 0)), v.mark))
    notes = _note_rows(setup, accumulators) if accumulators.has_stitch else []
    arrays: dict[str, Any] = {}
    if settings.requests and accumulators.has_stitch:
        arrays, unsolved = _describe_sites(setup, accumulators)
        notes += unsolved
    nulls, about = collect_nulls({c: {**values.get(c, {}), **published.get(c, {})} for c in setup.cells},
                                 (len(setup.source.sites), len(setup.target.sites)))
    return Findings(write_rows(setup, rows), arrays | nulls, notes,
                    {"n_fit": accumulators.examples, **counts}, nulls=about)


def _describe_sites(setup: SharedSetup, accumulators: Accumulators) -> tuple[dict[str, Any], list[str]]:
    """Return the statistics of the sites as arrays, and a note for each site whose spectrum is missing."""
    arrays: dict[str, Any] = {}
    notes = []
    matched_targets = {j for i, j in setup.cells if (i, j) not in accumulators.unaligned}
    for side, network in (("source", setup.source), ("target", setup.target)):
        for k, site in enumerate(network.sites):
            if side == "target" and k not in matched_targets:
                continue
            try:
                arrays |= pack_statistics(side, k, accumulators.compute_statistics(side, k))
            except NumericalError as e:
                notes.append(f"the spectrum of {side} {site} is missing: {e}")
    return arrays, notes


def _note_rows(setup: SharedSetup, accumulators: Accumulators) -> list[str]:
    constant, short, notes = {}, [], []
    fits_layers = bool(setup.settings.method_names)
    for i, j in setup.cells:
        if (i, j) in accumulators.unaligned:
            continue
        independent = accumulators.stitch.count_independent(i, j)
        try:
            x, y = accumulators.stitch.find_ranks(i, j)
            if x + y >= independent:
                short.append((independent, i, j))
            if x == 0:
                constant[i] = str(setup.source.sites[i])
        except NumericalError as e:
            cell = f"{setup.source.sites[i]} into {setup.target.sites[j]}"
            notes.append(f"the ranks of {cell} are missing: {e}")
    if constant:
        notes.append(f"constant representation at {', '.join(constant.values())}: similarities are missing "
                     "there" + ", and direct matching predicts the target's mean" * fits_layers)
    if short:
        n, i, j = min(short)
        cell = f"{setup.source.sites[i]} into {setup.target.sites[j]}"
        notes.append(f"{n} independent rows are too few for {len(short)} of {len(setup.cells)} cells, such "
                     f"as {cell}: cca, pwcca or r2 are missing" + ", and direct matching is the solution of "
                     "least norm where the source has more features" * fits_layers)
    return notes
