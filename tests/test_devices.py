"""Devices: products are exact on each, none is mixed with another, and the user's settings stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from suture.indices import gram_matrices
from suture.numbers import ShiftedSums
from suture.ood.distances import Gaussians
from suture.representations import Kind, Shape
from suture.representations.aligned_moments import AlignedMoments


@pytest.mark.parametrize("allow", ["high", "medium"])
@pytest.mark.parametrize("work", ["sums", "pairs", "gram", "distances"])
def test_products_are_exact_whatever_the_user_allows(monkeypatch: pytest.MonkeyPatch, allow: str,
                                                     work: str) -> None:
    """TF32 and bfloat16 are good enough for networks, not for moments; the user's choice stays."""
    switches = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    seen, shape, x = list[list[str]](), Shape(Kind.VECTOR, 3), torch.rand(8, 3)
    inner = torch.Tensor.__matmul__, torch.cdist

    def look(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            seen.append([s.fp32_precision for s in switches])
            return call(*args, **named)
        return run

    monkeypatch.setattr(torch.Tensor, "__matmul__", look(inner[0]))
    monkeypatch.setattr(torch, "cdist", look(inner[1]))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(allow)
    try:
        own = [s.fp32_precision for s in switches]
        assert "ieee" not in own[:1]
        {"sums": lambda: ShiftedSums(3).update(x),
         "pairs": lambda: AlignedMoments([shape], [shape]).update([x], [x]),
         "gram": lambda: gram_matrices._compute_gram(x),
         "distances": lambda: Gaussians(x[0], torch.eye(3), x[:2]).square_distances(x)}[work]()
        assert torch.get_float32_matmul_precision() == allow
        assert [s.fp32_precision for s in switches] == own
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen
    assert all(s == ["ieee", "ieee"] for s in seen)
