"""Factorisations: every driver gives the same result, and the next one is used where one fails."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse.csgraph
import torch

import suture
from suture._base import SutureError
from suture.numbers import (
    NumericalError,
    eigh,
    exponentiate_matrix,
    factorisations,
    find_assignment,
    qr,
    svd,
    svdvals,
)

X = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SYMMETRIC = X.T @ X
# Each function with its argument, and what its drivers call, in order.
LADDERS: dict[str, tuple[Callable[..., Any], torch.Tensor, list[tuple[Any, str]]]] = {
    "svd": (svd, X, [(torch.linalg, "svd"), (np.linalg, "svd"), (scipy.linalg, "svd"),
                     (torch.linalg, "eigh"), (np.linalg, "eigh"), (scipy.linalg, "eigh")]),
    "svdvals": (svdvals, X, [(torch.linalg, "svdvals"), (torch.linalg, "svd"), (np.linalg, "svd"),
                             (scipy.linalg, "svd"), (torch.linalg, "eigh"), (np.linalg, "eigh"),
                             (scipy.linalg, "eigh")]),
    "eigh": (eigh, SYMMETRIC, [(torch.linalg, "eigh"), (np.linalg, "eigh"), (scipy.linalg, "eigh")]),
    "qr": (qr, X, [(torch.linalg, "qr"), (np.linalg, "qr"), (scipy.linalg, "qr")]),
    "assignment": (find_assignment, X, [(scipy.optimize, "linear_sum_assignment"),
                                        (scipy.sparse.csgraph, "min_weight_full_bipartite_matching")]),
}


def canonical(name: str, found: Any) -> list[torch.Tensor]:
    """Return what does not depend on signs."""
    if name == "svd":
        u, s, vh = found
        return [s, (u * s) @ vh, u.T @ u, vh @ vh.T]
    if name == "eigh":
        return [found[0], (found[1] * found[0]) @ found[1].T]
    return [found[0] @ found[1], found[0].T @ found[0]] if name == "qr" else [*found]


ERRORS = [torch.linalg.LinAlgError("linalg.svd: (Batch element 0): the algorithm failed to converge"),
          np.linalg.LinAlgError("SVD did not converge"),
          RuntimeError("cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnDgesvd`"),
          RuntimeError("MAGMA gesdd : error 12 in info"), torch.OutOfMemoryError("CUDA out of memory")]


def make_failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("name", LADDERS)
def test_the_next_driver_is_used_and_the_last_failure_is_one_line(name, monkeypatch):
    compute, x, calls = LADDERS[name]
    expected = canonical(name, compute(x))
    for k, (module, attribute) in enumerate(calls):
        monkeypatch.setattr(module, attribute, make_failing(ERRORS[k % len(ERRORS)]))
        if k < len(calls) - 1:
            found = compute(x.float())
            assert all(t.dtype == torch.float32 for t in found if t.is_floating_point())
            for one, other in zip(canonical(name, compute(x)), expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7, check_dtype=False)
    with pytest.raises(NumericalError, match="no algorithm converges"):
        compute(x)


def list_drivers() -> list[tuple[str, int]]:
    return [(what, k) for what, drivers in factorisations.DRIVERS.items() for k in range(1, len(drivers))]


@pytest.mark.parametrize(("what", "k"), list_drivers())
def test_each_driver_gives_the_result_of_the_first(what: str, k: int) -> None:
    names = {"singular value decomposition": "svd", "singular values": "svdvals", "eigenvalues": "eigh",
             "QR decomposition": "qr", "assignment": "assignment"}
    first, driver = factorisations.DRIVERS[what][0], factorisations.DRIVERS[what][k]
    if driver.solve is factorisations._svd_of_cuda or (driver.as_given and not driver.applies(X)):
        pytest.skip("on CUDA alone")
    x = LADDERS[names[what]][1]
    for one, other in zip(*(canonical(names[what], d.solve(x)) for d in (first, driver)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10, check_dtype=False)


@pytest.mark.parametrize("name", LADDERS)
def test_no_driver_is_tried_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same function on the same numbers fails again; on another dtype it may not."""
    compute, x, calls = LADDERS[name]
    tried: list[str] = []
    for module, attribute in calls:
        where = f"{module.__name__}.{attribute}"

        def fail(*_: Any, where: str = where, **named: Any) -> Any:
            tried.append(f"{where} {named.get('driver', '')}")
            raise ERRORS[0]

        monkeypatch.setattr(module, attribute, fail)
    with pytest.raises(NumericalError):
        compute(x)
    assert len(tried) == len(set(tried)) >= len(calls)


def test_a_near_identity_has_a_decomposition_where_the_first_driver_fails(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """As the whitened cross scatter of a cell with itself, on which MKL with AVX2 raised this error."""
    g = torch.Generator().manual_seed(0)
    x = torch.eye(60).double() + 1e-13 * torch.randn(60, 60, generator=g, dtype=torch.float64)
    torch_svd = torch.linalg.svd

    def fail(m: torch.Tensor, **named: Any) -> Any:
        raise torch._C._LinAlgError("linalg.svd: (Batch element 0): The algorithm failed to converge "
                                    "because the input matrix is ill-conditioned or has too many repeated "
                                    "singular values (error code: 59).")

    monkeypatch.setattr(torch.linalg, "svd", fail)
    u, s, vh = svd(x)
    torch.testing.assert_close(s, torch_svd(x).S, rtol=1e-12, atol=0)
    torch.testing.assert_close((u * s) @ vh, x, rtol=0, atol=1e-12)


def test_a_result_that_is_not_finite_is_a_failure(monkeypatch):
    nan = torch.full((5,), torch.nan, dtype=torch.float64)
    monkeypatch.setattr(torch.linalg, "svdvals", lambda _: nan)
    torch.testing.assert_close(svdvals(X), torch.linalg.svd(X).S)


@pytest.mark.parametrize("name", LADDERS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_inf_have_no_result(name, bad):
    compute, x, _ = LADDERS[name]
    broken = x.clone()
    broken[1, 1] = bad
    with pytest.raises(NumericalError, match="NaN or inf"):
        compute(broken)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried")])
def test_short_memory_is_said_and_is_no_missing_value(error, monkeypatch):
    monkeypatch.setattr(torch.linalg, "svdvals", make_failing(error))
    with pytest.raises(SutureError, match="memory") as caught:
        svdvals(X)
    assert not isinstance(caught.value, NumericalError)


SHAPES = {"wide": X.T, "zero": torch.zeros(4, 3), "near identity": torch.eye(6) + 1e-13 * torch.ones(6, 6),
          "rank one": torch.outer(torch.arange(5.0), torch.ones(3)), "tiny": X * 1e-200, "large": X * 1e300,
          "empty": torch.zeros(0, 3), "graded": X * torch.logspace(0, -14, 5)}


@pytest.mark.parametrize("name", SHAPES)
def test_the_gram_matrix_gives_an_orthonormal_decomposition(name):
    x = SHAPES[name].double()
    u, s, vh = factorisations._svd_of_gram(x)
    k, size = min(x.shape), float(x.abs().max()) if x.numel() else 1.0
    torch.testing.assert_close(s, torch.linalg.svdvals(x), rtol=0, atol=1e-8 * size + 1e-300)
    torch.testing.assert_close((u * s) @ vh, x, rtol=0, atol=1e-13 * size + 1e-300)
    for q in (u.T @ u, vh @ vh.T):
        torch.testing.assert_close(q, torch.eye(k).double(), rtol=0, atol=1e-12)


def test_the_exponential_of_a_matrix_has_a_second_way_with_a_gradient(monkeypatch):
    a = 5 * (SYMMETRIC.tril() - SYMMETRIC.tril().T)
    expected = torch.autograd.functional.jacobian(torch.linalg.matrix_exp, a)
    found = torch.autograd.functional.jacobian(factorisations._square_taylor_series, a)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

    expected = torch.linalg.matrix_exp(a)
    monkeypatch.setattr(torch.linalg, "matrix_exp", make_failing(ERRORS[0]))
    torch.testing.assert_close(exponentiate_matrix(a), expected, rtol=1e-12, atol=1e-12)


NORMS = {"norm", "vector_norm", "matrix_norm", "LinAlgError"}
FORBIDDEN = {"svd", "pinverse", "matrix_exp", "cholesky", "lstsq", "lobpcg", "pca_lowrank", "svd_lowrank",
             "linear_sum_assignment", "logdet", "slogdet", "inverse", "pinv", "eigh", "eigvalsh", "sqrtm"}


def test_only_one_file_calls_factorisations():
    root, found = Path(suture.__file__).parent, []
    words = re.compile("|".join(["linalg", *FORBIDDEN]))
    for path in root.rglob("*.py"):
        text = path.read_text()
        # The published code's own factorisations are copied, faults included, to measure what they change.
        if path.name in ("factorisations.py", "published_code.py") or not words.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute):
                of = getattr(node.value, "attr", getattr(node.value, "id", ""))
                bare = (of.endswith("linalg") and node.attr not in NORMS) or node.attr in FORBIDDEN
            else:
                names = [a.name for a in node.names] if isinstance(node, ast.ImportFrom | ast.Import) else []
                module = (getattr(node, "module", None) or "").split(".")
                bare = bool("linalg" in module or {n.split(".")[-1] for n in names} & {"linalg"}
                            or (module[0] in ("scipy", "torch", "numpy") and {*names} & FORBIDDEN))
            if bare:
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    assert not found
