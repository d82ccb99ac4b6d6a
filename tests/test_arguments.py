"""Odd values for every argument of the public functions: one line of a `SutureError`, or a result."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError, indices, sources, testing, zoo
from suture.data import ImagePreprocessing, TextPreprocessing
from suture.networks import Recipe
from suture.results import write_report
from suture.studies import ProbeRecipe
from tests.support.comparisons import one_cell
from tests.support.tiny import seeded


class Unspeakable:
    """An object that cannot be shown, compared or counted."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


def some_function(*given: Any) -> int:
    return 1


ODD: dict[str, Any] = {
    "None": None, "5": 5, "-1": -1, "2.5": 2.5, "nan": float("nan"), "inf": float("inf"), "2^70": 2**70,
    "10^400": 10**400, "no text": "", "a": "a", "bytes": b"x", "[]": [], "{}": {}, "[None]": [None],
    "[[a]]": [["a"]], "(1, 2)": (1, 2), "dict": {"a": 1}, "object": Unspeakable(), "tensor": torch.rand(3),
    "array": np.arange(3),
    "function": some_function, "class": nn.Linear, "True": True, "long": "x" * 9999, "nul": "a\0b",
    "controls": "a\x1b[31m\n\u202e", "missing": "/no/such.safetensors", "complex": 1j, "set": {"a"},
}
NET = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))).eval()
X, Y = torch.rand(8, 4), torch.arange(8) % 3
A = np.random.default_rng(0).normal(size=(30, 4))
RESULT: Any = one_cell()
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "CompareOptions": (lambda **given: _settings(given), {}),
    "paper": (suture.paper, {}),
    "load": (suture.load, {"dir": "/no/such"}),
    "load_stitched": (suture.load_stitched, {"path": "/no/such", "source": NET, "target": NET}),
    "find_sites": (suture.find_sites, {"network": NET, "inputs": X}),
    "capture": (suture.capture, {"network": NET, "inputs": X, "sites": "0"}),
    "run_tail": (suture.run_tail, {"network": NET, "inputs": X, "site": "0", "x": torch.rand(8, 6)}),
    "Site": (suture.Site, {"path": "a"}),
    "Site.parse": (suture.Site.parse, {"name": "a"}),
    "Prepared": (suture.Prepared, {"data": (X, Y), "source": None}),
    "Paired": (suture.Paired, {"source": [(X, Y)], "target": [(X, Y)]}),
    "ImagePreprocessing": (ImagePreprocessing, {}),
    "TextPreprocessing": (TextPreprocessing, {"tokenizer": some_function}),
    "compare_arrays": (suture.compare_arrays, {"source": A, "target": A, "indices": ["cka"]}),
    "compare_arrays by name": (suture.compare_arrays, {"source": {"a": A}, "indices": ["cka"]}),
    "merged_moments": (suture.merged_moments, {"paths": ["/no/such"]}),
    "of_matrices": (indices.of_matrices, {"x": A, "y": A, "names": ["cka"]}),
    "of_logits": (indices.of_logits, {"source": A, "target": A}),
    "chosen": (indices.chosen, {}),
    "own": (indices.own, {"fn": lambda x, y: 0.5, "name": "odd_values"}),
    "AlignmentRule": (suture.AlignmentRule, {}),
    "TaskRecipe": (suture.TaskRecipe, {}),
    "EnergyRecipe": (suture.EnergyRecipe, {}),
    "Recipe": (Recipe, {}),
    "ProbeRecipe": (ProbeRecipe, {}),
    "OOD": (suture.OOD, {}),
    "Thresholds": (suture.Thresholds, {}),
    "Family.parse": (suture.Family.parse, {"text": "full"}),
    "zoo.build": (zoo.build, {"name": "no such"}),
    "zoo.train_network": (zoo.train_network, {"name": "no such"}),
    "zoo.digits": (zoo.digits, {}),
    "zoo.save_weights": (zoo.save_weights, {"network": NET, "path": "no ending"}),
    "zoo.load_weights": (zoo.load_weights, {"network": NET, "path": "/no/such"}),
    "zoo.ImageSet": (zoo.ImageSet, {"inputs": torch.rand(2, 1, 4, 4), "labels": torch.zeros(2).long(),
                                    "classes": 1, "name": "x"}),
    "open_source": (sources.open_source, {"spec": "/no/such.npz"}),
    "open_pair": (sources.open_pair, {"spec": "/no/such.npz"}),
    "is_spec": (sources.is_spec, {"text": "a"}),
    "index_laws": (testing.index_laws, {"index": "cka"}),
    "family_laws": (testing.family_laws, {"family": "full"}),
    "matrix": (RESULT.matrix, {"measure": RESULT.measures[0]}),
    "marks": (RESULT.marks, {"measure": RESULT.measures[0]}),
    "cells": (RESULT.cells, {}),
    "plot": (RESULT.plot, {"measure": "no such"}),
    "difference": (RESULT.difference, {"a": ("a", "b"), "b": ("a", "b"), "measure": "dm.kl"}),
    "equals": (RESULT.equals, {"other": RESULT}),
    "save": (RESULT.save, {"dir": "/proc/no"}),
    "report": (RESULT.report, {"path": "/proc/no/x.html"}),
    "write_report": (write_report, {"comparisons": [], "path": "/proc/no/x.html"}),
    "Comparison": (suture.Comparison, {f: getattr(RESULT, f) for f in (
        "source", "target", "sources", "targets", "same_network", "same_architecture", "table", "arrays",
        "meta")}),
}


def _settings(given: dict[str, Any]) -> Any:
    from suture.compare.settings import CompareOptions

    made = CompareOptions(**{"source": NET, **given})
    return made.requests, made.detection, made.recipe


@pytest.mark.parametrize("name", CALLS)
def test_no_value_of_an_argument_ends_in_another_error(name: str, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, given = CALLS[name]
    of: Any = suture.compare if name == "CompareOptions" else call
    named = [p.name for p in inspect.signature(of).parameters.values() if p.kind is not p.VAR_KEYWORD]
    messages = []
    for argument in named:
        for value in ODD.values():
            try:
                call(**{**given, argument: value})
            except SutureError as error:
                messages.append(str(error))
    assert messages or name == "equals"  # which is False of all else
    assert [m for m in messages if not m.isprintable() or len(m) > 1100] == []
