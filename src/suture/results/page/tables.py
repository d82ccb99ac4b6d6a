"""Tables and lists of a comparison on its page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suture.numbers import METHOD_NAMES, get_measure
from suture.ood import BUILT_IN, describe_range
from suture.results.inference.nulls import count_above_chance
from suture.results.measured import Measured
from suture.results.sanity import is_lost
from suture.results.standing import find_standing
from suture.results.unjudged import shorten_name

if TYPE_CHECKING:
    import pandas as pd

_HEADERS = {
    "measure": "measure", "layers": "target layers", "violated": "another is more similar",
    "beyond_noise": "beyond noise", "corresponding": "corresponding is nearest",
    "source_layers": "source layers", "corresponding_by_source": "corresponding is nearest",
    "marked": "on marked cells", "worst_margin": "largest margin", "worst_source": "by source",
    "worst_target": "into target", "undefined": "cells without value",
}
_CALL = "a call in Python, of which no command is known; all its settings stand below"
# Shown elsewhere on the page, so not in the list of settings.
_SHOWN_ELSEWHERE = ("versions", "seed", "command", "settings", "n_fit", "n_test", "created", "device",
                    "notes", "stages", "ood", "chance", "warning")


def summarise_size(measured: Measured) -> str:
    """Summarise in one line what was compared: layers, methods, indices and examples."""
    methods = [name for tag, name in METHOD_NAMES.items()
               if any(measure.startswith(f"{tag}.") for measure in measured.measures)]
    indices = sum("." not in name for name in measured.measures)
    parts = [f"{len(measured.sources)} source × {len(measured.targets)} target layers", *methods,
             f"{indices} {'index' if indices == 1 else 'indices'}" if indices else "",
             _count_examples(measured)]
    return ", ".join(filter(None, parts))


def _count_examples(measured: Measured) -> str:
    kinds = ("n_fit", "to fit"), ("n_test", "to test")
    return ", ".join(f"{measured.meta[key]} {words}" for key, words in kinds
                     if measured.meta.get(key) is not None)


def list_facts(measured: Measured) -> list[tuple[str, str]]:
    """List what was compared: sites, kind of pair, methods, indices, examples."""
    kind = ("one network with itself" if measured.same_network else
            "two networks of one architecture" if measured.same_architecture else "two architectures")
    methods = [f"{name} ({tag.upper()})" for tag, name in METHOD_NAMES.items()
               if any(measure.startswith(f"{tag}.") for measure in measured.measures)]
    facts = [
        ("source (rows)", f"{measured.source}: {', '.join(measured.sources)}"),
        ("target (columns)", f"{measured.target}: {', '.join(measured.targets)}"),
        ("kind", kind),
        ("stitched by", ", ".join(methods)),
        ("indices", ", ".join(get_measure(m).label for m in measured.measures if "." not in m)),
        ("examples", _count_examples(measured)),
    ]
    return [(name, value) for name, value in facts if value]


def list_terms(measured: Measured) -> str:
    """Explain the short names of stitching methods and what works, in one sentence; empty without methods."""
    criteria = find_standing(measured).criteria
    names = [f"{method.upper()}: {METHOD_NAMES[method]}" for method in ("tlm", "dm") if method in criteria]
    return "; ".join([*names, f"works: {next(iter(criteria.values())).rule}"]) + "." if names else ""


def list_provenance(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List how a comparison was made: settings, seed, device, versions and command."""
    rows = dict(meta.get("settings") or {})
    rows |= {key: value for key, value in meta.items() if key not in _SHOWN_ELSEWHERE}
    rows |= {key: meta[key] for key in ("seed", "device", "created", "stages") if meta.get(key) is not None}
    if meta.get("versions"):
        rows["versions"] = [f"{name} {version}" for name, version in meta["versions"].items()]
    if meta.get("command"):
        rows["command"] = meta["command"]
    return [(key, _format_setting(value)) for key, value in rows.items()]


def list_reproduction(measured: Measured) -> list[tuple[str, str]]:
    """List what another person needs to make the same numbers, without the settings."""
    meta = measured.meta
    names = measured.source, measured.target
    prints = dict.fromkeys(f"{name} {found}" for name, found in
                           zip(names, meta.get("fingerprints") or (), strict=False))
    call = "" if meta.get("command") or not meta.get("settings") else _CALL
    rows = [("command", meta.get("command")), ("made by", call), ("seed", meta.get("seed")),
            ("versions", [f"{name} {version}" for name, version in (meta.get("versions") or {}).items()]),
            ("fingerprints of the weights", list(prints)), ("fingerprint of the run", meta.get("key")),
            ("device", meta.get("device")), ("made", meta.get("created"))]
    return [(name, _format_setting(value)) for name, value in rows if value not in (None, [], "")]


def tabulate_chance(measured: Measured) -> list[list[str]]:
    """Tabulate how many cells of each index are above chance, of those that were tested."""
    counts = [(name, count_above_chance(measured, name)) for name in measured.measures
              if f"null.tests/{name}" in measured.arrays]
    return [[get_measure(name).label, str(above), str(tested)] for name, (above, tested) in counts if tested]


def _format_setting(value: object) -> str:
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(str(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tabulate_verdict(table: pd.DataFrame) -> dict[str, Any] | None:
    """Build the table of the sanity battery; a cell is (text, True if a number)."""
    if table.empty:
        return None
    rows = [{"lost": is_lost(record), "cells": [_format_entry(str(k), v) for k, v in record.items()]}
            for record in table.to_dict("records")]
    return {"headers": [(_HEADERS[name], not isinstance(table[name].iloc[0], str)) for name in table.columns],
            "rows": rows}


def _format_entry(column: str, value: Any) -> tuple[str, bool]:
    if isinstance(value, str):
        return (get_measure(value).label if column == "measure" else shorten_name(value, 24) or "–"), False
    if math.isnan(value):
        return "–", True
    return (f"{value:.3g}" if column == "worst_margin" else f"{value:.0f}"), True


def tabulate_quality(measured: Measured) -> list[dict[str, Any]]:
    """Tabulate how well detectors tell native from other representations.

    A row has a site and the AUROCs on auxiliary and unseen data, two-sided and one-sided.
    """
    def describe(value: float | None) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.3f}"

    return [{"name": name, "rows": [
        (site, [describe(found.get(f"{kind}{side}")) for kind in ("auxiliary", "unseen")
                for side in ("", "_one_sided")])
        for site, found in zip(measured.targets, sites, strict=False)]}
        for name, sites in (measured.meta.get("ood") or {}).get("quality", {}).items()]


def tabulate_range(measured: Measured) -> list[list[str]]:
    """Tabulate the natural range: each site with both radii and the shifts that set them."""
    found = describe_range(measured.meta, measured.targets)
    return [[row["site"], *(f"{row[r]:.3g} ({row[f'{r}_low']:.3g} to {row[f'{r}_high']:.3g}), "
                            f"{row[f'{r}_shift']}" if row[f"{r}_shift"] else f"– ({row[f'{r}_reason']})"
                            for r in ("inner", "outer"))]
            for row in found if row["range"] == BUILT_IN]


def list_missing(measured: Measured) -> list[str]:
    """List why measures have no value, with the number of cells."""
    table = measured.table[measured.table["reason"] != ""]
    counts = Counter(zip(table["measure"], table["reason"], strict=True))
    return [f"{get_measure(name).label}: no value ({reason}), cells: {count}."
            for (name, reason), count in counts.items()]
