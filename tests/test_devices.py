"""Devices: products are exact on each, none is mixed with another, and the user's settings stay."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import suture
from suture import SutureError
from suture.data import Batch, move_batch
from suture.indices import gram_matrices
from suture.numbers import ShiftedSums
from suture.ood.distances import Gaussians
from suture.representations import Alignment, Kind, Shape
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.row_sample import RowSample
from suture.stitching import FAMILIES, Family, StitchingLayer
from tests.support import tiny
from tests.support.comparisons import one_cell

META = torch.device("meta")
"""A device whose tensors cannot be mixed with others."""


@pytest.mark.parametrize("allow", ["high", "medium"])
@pytest.mark.parametrize("work", ["sums", "pairs", "gram", "distances", "rows"])
def test_products_are_exact_whatever_the_user_allows(monkeypatch: pytest.MonkeyPatch, allow: str,
                                                     work: str) -> None:
    """TF32 and bfloat16 are good enough for networks, not for moments; the user's choice stays."""
    switches = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    seen, shape, x = list[list[str]](), Shape(Kind.VECTOR, 3), torch.rand(8, 3)
    inner = torch.Tensor.__matmul__, torch.cdist, torch.einsum
    maps = [Shape(Kind.MAP, 3, size) for size in ((4, 4), (2, 2))]

    def look(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            seen.append([s.fp32_precision for s in switches])
            return call(*args, **named)
        return run

    monkeypatch.setattr(torch.Tensor, "__matmul__", look(inner[0]))
    monkeypatch.setattr(torch, "cdist", look(inner[1]))
    monkeypatch.setattr(torch, "einsum", look(inner[2]))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allow)
    try:
        own = [s.fp32_precision for s in switches]
        assert "ieee" not in own[:1]
        {"sums": lambda: ShiftedSums(3).update(x),
         "pairs": lambda: AlignedMoments([shape], [shape]).update([x], [x]),
         "gram": lambda: gram_matrices._compute_gram(x),
         "distances": lambda: Gaussians(x[0], torch.eye(3), x[:2]).square_distances(x),
         "rows": lambda: RowSample({(0, 0): Alignment(*maps)}, stitched=True, most=4, seed=0,
                                   precision=torch.float32).update(
             *([torch.rand(8, *s.dims)] for s in maps), None, None)}[work]()
        assert torch.get_float32_matmul_precision() == allow
        assert [s.fp32_precision for s in switches] == own
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen
    assert all(s == ["ieee", "ieee"] for s in seen)


@pytest.mark.parametrize("family", [e for f in FAMILIES.values() for e in f.examples])
def test_a_family_stays_on_its_device(family: str) -> None:
    of = Family.parse(family)
    weight = of.make_identity(4, 4).to(META)
    try:
        parts = of.split(weight)
    except (NotImplementedError, RuntimeError) as error:
        if "two devices" in str(error):
            raise
        pytest.skip("it looks at the numbers")
    assert {of.join(parts).device, *(p.device for p in parts.values())} == {META}
    assert (of.join(parts) - weight).device == META


@pytest.mark.parametrize("source", [Shape(Kind.MAP, 3, (4, 4)), Shape(Kind.TOKENS, 3, (5,), prefix=1),
                                    Shape(Kind.VECTOR, 3)])
def test_a_layer_stays_on_its_device(source: Shape) -> None:
    target = replace(source, width=5, size=tuple(s + 1 for s in source.size))
    layer = StitchingLayer(Alignment(source, target)).to(META)
    size = {Kind.MAP: (3, 4, 4), Kind.TOKENS: (5, 3), Kind.VECTOR: (3,)}[source.kind]
    assert layer(torch.zeros(2, *size, device=META)).device == META


@pytest.mark.parametrize(("device", "waits"), [("cpu", True), ("meta", False)])
def test_copies_to_the_cpu_are_waited_for(monkeypatch: pytest.MonkeyPatch, device: str, waits: bool) -> None:
    """A tensor that a GPU still copies to the CPU holds anything."""
    seen, inner = list[bool](), torch.Tensor.to

    def to(self: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        seen.append(named.get("non_blocking", False))
        return inner(self, *args, **named)

    monkeypatch.setattr(torch.Tensor, "to", to)
    move_batch(Batch(tiny.images(2), tiny.images(2), tiny.labels(2)), torch.device(device))
    assert set(seen) == {not waits}


def test_mps_has_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(SutureError, match=r"float32.*mps"):
        suture.compare(tiny.network(), data=tiny.data()[0], device="mps", precision="float64")


# -- the script for machines with a GPU


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).parents[1] / "checks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_script", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["gpu_script"] = made  # its dataclass looks there
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize(("measure", "other", "passed"), [
    ("cka", 0.50009, True), ("cka", 0.50011, False), ("dm.kl", 0.5009, True), ("dm.kl", 0.5011, False),
    ("dm.accuracy", 0.599, True), ("dm.accuracy", 0.602, False), ("tlm.ood_energy", 0.509, True),
    ("tlm.ood_energy", 0.511, False), ("shape:0.25", 0.5011, False), ("cka", float("nan"), False)])
def test_the_script_tells_rounding_from_errors(script: Any, measure: str, other: float, passed: bool) -> None:
    """`dm.accuracy` of ten examples may change by one of them."""
    one, two = (one_cell(table=one_cell(v, reason="why" if v != v else "").table.assign(measure=measure))
                for v in (0.5, other))
    assert script.compare_tables(one, two, script.LIMITS).passed == passed


def test_the_script_leaves_scores_out_that_rounding_decides(script: Any) -> None:
    def made(value: float, residual: float) -> suture.Comparison:
        return one_cell(table=pd.concat([one_cell(value).table.assign(measure="dm.ood_maha"),
                                         one_cell(residual).table.assign(measure="dm.residual")]))

    assert script.compare_tables(made(0.5, 1e-9), made(0.6, 1e-9), script.LIMITS).passed
    assert not script.compare_tables(made(0.5, 1e-3), made(0.6, 1e-3), script.LIMITS).passed


def test_the_script_needs_the_device(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"'cuda' is not available.*--device cpu"):
        script.choose_device("cuda")
