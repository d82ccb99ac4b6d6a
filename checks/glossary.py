"""Find words that the glossary replaced: names in code, module paths in text.

    python checks/glossary.py          # prints what it finds; exit code 1 where there is anything

One word per idea, one idea per word: the reasons stand in docs and in the commit that replaced them.
"""

from __future__ import annotations

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

NAMES = {
    # moments and accumulators: a grid is a grid of positions only
    "GridMoments": "PairMoments", "Gathering": "Accumulators", "KeptRows": "RowSample",
    "Wanted": "AccumulatorSettings", "Directions": "UnitRowSums",
    "shape_of": "recognise_shape", "mask_of": "get_token_mask", "Taken": "ShapeOverride",
    "moments_pass": "collect_moments", "detectors_pass": "_fit_detectors",
    # networks
    "Watch": "CallRecorder", "Pass": "RecordedPass", "Directory": "SiteFinder", "frozen": "freeze",
    "no_gradients": "disable_gradients", "main_output": "extract_main_output",
    "named_seed": "derive_seed",
    # stitching and evaluation
    "Room": "BatchBudget", "Plan": "Settings", "told": "report_network_errors",
    "judge": "find_unconverged, run_sanity_battery", "cell_seed": "derive_cell_seed",
    "fitting_data": "make_training_batches", "rehearse": "dry_run", "Reached": "StitchedAccuracy",
    # detectors
    "Seen": "SiteFeatures", "Fitting": "DetectorFitter", "Scoring": "ScoreCollector",
    "Shelf": "DetectorCache", "Plugged": "UserDetector", "Outside": "AuxiliaryData",
    # results
    "Compared": "ComparisonLike", "said": "a name that says what it holds", "cell_words": "describe_cells",
    "heatmap": "draw_heatmap", "marked_words": "describe_marks",
    # data
    "the_one": "find_only_input", "kind_of_input": "find_input_kind", "split_of": "find_split",
}
"""Names in code that have another name now."""
MODULES = {
    "_errors": "_base.errors", "nested": "_base.trees", "fingerprints": "_base.hashing",
    "memory": "_base.runtime", "measures": "numbers.measures", "moments": "numbers.moments",
    "spectra": "numbers.spectra", "grids": "numbers.pair_moments", "resampling": "numbers.resizing",
    "scores": "numbers.intervals", "separation": "numbers.roc", "frechet": "numbers.frechet_distance",
    "matrices": "indices.matrices", "shapes": "representations.shapes",
    "aligned": "representations.aligned_moments",
    "keeping": "representations.row_sample", "gathering": "representations.accumulators",
    "batches": "data.batches", "streams": "data.streams", "preprocessing": "data.preprocessing",
    "auxiliary": "data.auxiliary", "outside": "ood.auxiliary", "calls": "networks.calls",
    "naming": "networks.naming", "sites": "networks.sites", "prepare": "networks.preparation",
    "training": "networks.training", "bodies": "networks.architectures", "detectors": "ood.table",
    "detection": "ood.detection", "shelf": "ood.detector_store", "cells": "results.verdicts",
    "verdict": "results.sanity", "tabular": "results.measured", "storage": "results.saving",
    "plans": "compare.settings", "runs": "compare.run",
    "passes": "compare.moments", "assembly": "compare.result", "provenance": "compare.setup",
    "rehearsal": "compare.run", "demo": "cli.demo",
}
"""Modules that lay beside the rooms, and where they are now."""
_PATH = re.compile(rf"\bsuture\.({'|'.join(MODULES)})\b(?!/)")
PLACES = ("src", "tests", "tests_vision", "benchmarks", "docs", "README.md", "CONTRIBUTING.md",
          "CHANGELOG.md")


def find_names(path: Path) -> Iterator[tuple[int, str, str]]:
    """Find replaced names in a Python file: line, name, what to write instead."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NAME and token.string in NAMES:
                if token.string == "frozen" and "dataclass(" in token.line:
                    continue
                yield token.start[0], token.string, NAMES[token.string]


def find_paths(path: Path) -> Iterator[tuple[int, str, str]]:
    """Find paths of modules that have moved, in any text file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for match in _PATH.finditer(line):
            yield number, match[0], f"suture.{MODULES[match[1]]}"


def main() -> int:
    """Print every replaced word with its place; return the exit code."""
    found = []
    for place in map(Path, PLACES):
        files = [place] if place.is_file() else sorted(place.rglob("*.py")) + sorted(place.rglob("*.md"))
        for path in files:
            found += [(path, *f) for f in find_paths(path)]
            found += [(path, *f) for f in find_names(path)] if path.suffix == ".py" else []
    for path, line, word, instead in found:
        sys.stdout.write(f"{path}:{line}: {word!r} is replaced; write {instead}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
