"""Spec files with fewer seeds than they name."""

from __future__ import annotations

from dataclasses import replace

from suture._base import expect
from suture.studies.spec.toml_file import TomlFile


def keep_seeds(file: TomlFile, n: int | None) -> TomlFile:
    """Return a file with the first `n` seeds of each network, and the pairs among these; None: all.

    Raises:
        SutureError: no pair is left.
    """
    if n is None:
        return file
    networks, gone = dict(file.get_table(("networks",))), set[str]()
    for name, table in networks.items():
        seeds = table.get("seeds") if isinstance(table, dict) else None
        if isinstance(seeds, list):
            gone |= {f"{name}-seed{seed}" for seed in seeds[n:]}
            networks[name] = {**table, "seeds": seeds[:n]}
    study = dict(file.get_table(("study",)))
    if isinstance(study.get("pairs"), list):
        kept = [pair for pair in study["pairs"] if not gone.intersection(pair)]
        expect(bool(kept), f"pairs of the first {n} seeds in {file.path.name}", "none", "give more seeds")
        study["pairs"] = kept
    return replace(file, content={**file.content, "networks": networks, "study": study})
