"""Factorisations of matrices: the one place that calls LAPACK, with other drivers where one fails.

A driver fails if it raises or if its result is not finite for finite input. LAPACK's divide and conquer does
not converge on some matrices on some processors (near-identities with MKL and AVX2), and its other drivers
do. All drivers give the same result within rounding. Only the last one, the eigenvectors of x'x, loses
digits: of singular values below sqrt(eps) times the largest, far below what any index shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError
from suture.numbers.records import Floats

Solve = Callable[[Tensor], Sequence[Tensor]]
_MEMORY = "can't allocate memory", "not enough memory"
"""Words of torch's error for an allocation on the CPU that fails, a plain RuntimeError."""
_TAYLOR_TERMS = 14
"""Terms of exp(A) at |A| <= 1/2: the next one is below 1e-17."""


class NumericalError(SutureError):
    """Error for numbers without a result: no driver factorises them, or no iteration converges.

    Whatever needs the result is missing, with this text as its reason; nothing else is.
    """


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the thin singular value decomposition (U, s, V') of a matrix.

    Raises:
        NumericalError: NaN or inf in `x`, or no driver converges.
    """
    u, s, vh = _factorise("singular value decomposition", x)
    return u, s, vh


def svdvals(x: Tensor) -> Tensor:
    """Compute the singular values of a matrix, largest first; raise as `svd`."""
    return _factorise("singular values", x)[0]


def eigh(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the eigenvalues, smallest first, and eigenvectors of a symmetric matrix; raise as `svd`."""
    values, vectors = _factorise("eigenvalues", x)
    return values, vectors


def qr(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the thin QR decomposition of a matrix; raise as `svd`."""
    q, r = _factorise("QR decomposition", x)
    return q, r


def exponentiate_matrix(x: Tensor) -> Tensor:
    """Compute the exponential of a square matrix, with a gradient; NaN stays NaN, as training expects."""
    # Nothing is checked, because a check waits for an accelerator in every training step.
    try:
        found: Tensor = torch.linalg.matrix_exp(x)
    except RuntimeError:
        found = _square_taylor_series(x)
    return found


def find_assignment(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of the assignment with the largest sum of the selected `values` (p, q).

    Each row is assigned at most one column, min(p, q) in all; raise as `svd`.
    """
    rows, columns = _factorise("assignment", values)
    return rows.long(), columns.long()


def _factorise(what: str, x: Tensor) -> Sequence[Tensor]:
    """Return the result of the first of the `DRIVERS` that works, in the dtype and on the device of `x`."""
    name = f"{what} of a matrix of {' x '.join(map(str, x.shape))}"
    if not bool(torch.isfinite(x).all()):
        raise NumericalError(f"no {name}: it holds NaN or inf")
    for driver in DRIVERS[what]:
        if not driver.applies(x):
            continue
        try:
            found = [part.to(x.device, x.dtype) for part in driver.solve(driver.move(x))]
        except MemoryError as e:
            raise _make_memory_error(name) from e
        except torch.OutOfMemoryError:  # of an accelerator; the next drivers use the CPU
            continue
        except (RuntimeError, ValueError, ArithmeticError) as e:  # also LinAlgError of torch and NumPy
            if any(words in str(e) for words in _MEMORY):
                raise _make_memory_error(name) from e
            continue
        if all(bool(torch.isfinite(part).all()) for part in found):
            return found
    raise NumericalError(f"no {name}: no algorithm converges")


def _make_memory_error(name: str) -> SutureError:
    return SutureError(f"the {name} does not fit into the memory; free some, or compare narrower sites")


def _from_numpy(parts: Iterable[Any]) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(part)) for part in parts]


def _svd_of_torch(x: Tensor) -> Sequence[Tensor]:
    return cast(Sequence[Tensor], torch.linalg.svd(x, full_matrices=False))


def _svd_of_cuda(x: Tensor) -> Sequence[Tensor]:
    return cast(Sequence[Tensor], torch.linalg.svd(x, full_matrices=False, driver="gesvd"))


def _svd_of_numpy(x: Tensor) -> Sequence[Tensor]:
    return _from_numpy(np.linalg.svd(x.numpy(), full_matrices=False))


def _svd_of_scipy(x: Tensor) -> Sequence[Tensor]:
    from scipy import linalg

    return _from_numpy(linalg.svd(x.numpy(), full_matrices=False, lapack_driver="gesvd"))


def _svd_of_gram(x: Tensor) -> Sequence[Tensor]:
    """Compute the decomposition from the eigenvectors of the smaller Gram matrix."""
    if len(x) < x.shape[1]:
        u, s, vh = _svd_of_gram(x.T)
        return vh.T, s, u.T
    unit = float(x.abs().max()) if x.numel() else 0.0
    scaled = x / unit if unit > 0 else x
    v = eigh(scaled.T @ scaled)[1].flip(1)
    # The columns of x V are orthogonal, and QR makes them orthonormal also where they vanish.
    u, r = qr(scaled @ v)
    s, order = r.diagonal().abs().sort(descending=True)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0)
    return (u * signs)[:, order], s * unit, v[:, order].T


def _take_values(solve: Solve) -> Solve:
    """Return a function that computes the singular values alone."""
    return lambda x: solve(x)[1:2]


def _eigh_of_scipy(driver: str) -> Solve:
    def solve(x: Tensor) -> Sequence[Tensor]:
        from scipy import linalg

        return _from_numpy(linalg.eigh(x.numpy(), driver=driver))  # type: ignore[call-overload]

    return solve


def _qr_of_scipy(x: Tensor) -> Sequence[Tensor]:
    from scipy import linalg

    return _from_numpy(linalg.qr(x.numpy(), mode="economic"))


def _square_taylor_series(x: Tensor) -> Tensor:
    """Compute exp(x) as exp(x / 2^k)^(2^k), the inner one from its series."""
    size = float(torch.linalg.matrix_norm(x.detach()))
    squarings = max(0, math.ceil(math.log2(2 * size))) if 0 < size < math.inf else 0
    term = total = torch.eye(len(x)).to(x)
    for k in range(1, _TAYLOR_TERMS + 1):
        term = term @ x / (k * 2**squarings)
        total = total + term
    for _ in range(squarings):
        total = total @ total
    return total


def _assign_densely(values: Tensor) -> Sequence[Tensor]:
    from scipy import optimize

    return _from_numpy(optimize.linear_sum_assignment(values.numpy(), maximize=True))


def _assign_sparsely(values: Tensor) -> Sequence[Tensor]:
    from scipy.sparse import csgraph, csr_array

    # A sparse matrix takes zeros for missing entries. A constant changes all sums by the same.
    positive: Floats = (values - values.min() + 1).numpy()
    return _from_numpy(csgraph.min_weight_full_bipartite_matching(csr_array(positive), maximize=True))


def _is_double(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float64


class Driver(NamedTuple):
    """One way to a factorisation: a function, on the CPU in float64 unless it takes a matrix `as_given`."""

    solve: Solve
    applies: Callable[[Tensor], bool] = lambda x: True
    as_given: bool = False

    def move(self, x: Tensor) -> Tensor:
        return x if self.as_given else x.detach().cpu().double()


def _start_with(solve: Solve, *others: Driver) -> tuple[Driver, ...]:
    """Begin with torch's function on the matrix as it is, then on the CPU in float64, where that differs."""
    return Driver(solve, as_given=True), *others, Driver(solve, lambda x: not _is_double(x))


_SVDS = (*_start_with(_svd_of_torch, Driver(_svd_of_cuda, lambda x: x.is_cuda, as_given=True)),
         Driver(_svd_of_numpy), Driver(_svd_of_scipy), Driver(_svd_of_gram))
DRIVERS: Mapping[str, tuple[Driver, ...]] = {
    "singular value decomposition": _SVDS,
    "singular values": (Driver(lambda x: [torch.linalg.svdvals(x)], as_given=True),
                        *(d._replace(solve=_take_values(d.solve)) for d in _SVDS)),
    "eigenvalues": (*_start_with(lambda x: torch.linalg.eigh(x)),
                    Driver(lambda x: _from_numpy(np.linalg.eigh(x.numpy()))),
                    Driver(_eigh_of_scipy("ev")), Driver(_eigh_of_scipy("evr"))),
    "QR decomposition": (*_start_with(lambda x: torch.linalg.qr(x)),
                         Driver(lambda x: _from_numpy(np.linalg.qr(x.numpy()))), Driver(_qr_of_scipy)),
    "assignment": (Driver(_assign_densely), Driver(_assign_sparsely)),
}
"""Ways to each factorisation, in their order, each another algorithm or another library.

NumPy has divide and conquer as torch has it, from another LAPACK. SciPy's gesvd and ev iterate by QR, evr
finds relatively robust representations.
"""
