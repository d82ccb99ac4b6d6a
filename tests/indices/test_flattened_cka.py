"""CKA of flattened representations against the definitions by the letter, in float64 on explicit Gram
matrices."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from suture._base.errors import SutureError
from suture.indices import INDICES, FlatKernels, Index, Kernels, Needs
from suture.numbers import NonFiniteError

SHAPES = ((3, 4, 2), (5, 6), (7,))
MINIBATCH = INDICES["cka_minibatch"]
BIASED, DEBIASED = (INDICES[name].align("flatten") for name in ("cka", "cka_debiased"))
Cell = dict[Needs, Kernels]


def cka_minibatch(cell: Cell) -> float:
    return MINIBATCH(cell[MINIBATCH.needs]).value


def flat_cka(cell: Cell) -> float:
    return BIASED(cell[BIASED.needs]).value


def flat_cka_debiased(cell: Cell) -> float:
    return DEBIASED(cell[DEBIASED.needs]).value


def why(index: Index, cell: Cell) -> str:
    return index(cell[index.needs]).reason


def maps(n: int, seed: int = 0, mean: float = 0.0, shapes=SHAPES) -> list[torch.Tensor]:
    """Representations that share three of their directions, with spread 1."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(n, 3, generator=g)
    made = []
    for shape in shapes:
        width = math.prod(shape)
        x = common @ torch.randn(3, width, generator=g) / 2 + torch.randn(n, width, generator=g)
        made.append((x / x.std() + mean * torch.randn(width, generator=g)).view(n, *shape))
    return made


def song(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC_1, Song et al. 2012, eq. 4, element by element."""
    n = len(x)
    k = [[0.0 if i == j else float(np.sum(x[i] * x[j])) for j in range(n)] for i in range(n)]
    m = [[0.0 if i == j else float(np.sum(y[i] * y[j])) for j in range(n)] for i in range(n)]
    each = range(n)
    trace = sum(k[i][j] * m[j][i] for i in each for j in each)
    sums = sum(k[i][j] for i in each for j in each) * sum(m[i][j] for i in each for j in each)
    third = sum(sum(k[i][a] for i in each) * sum(m[a][j] for j in each) for a in each)
    return (trace + sums / ((n - 1) * (n - 2)) - 2 / (n - 2) * third) / (n * (n - 3))


def flat(x: torch.Tensor) -> np.ndarray:
    x = x.double().flatten(1).numpy()
    # Song's estimator does not change when a point is subtracted; without it float64 is not enough for large
    # means.
    return x - x.mean(0)


def slow_minibatch(x: torch.Tensor, y: torch.Tensor, batch: int) -> float:
    parts = [(flat(x[s:s + batch]), flat(y[s:s + batch])) for s in range(0, len(x), batch)
             if len(x[s:s + batch]) >= 4]
    xy, xx, yy = (sum(song(*pair) for pair in pairs) for pairs in
                  (parts, [(a, a) for a, _ in parts], [(b, b) for _, b in parts]))
    return xy / math.sqrt(xx * yy)


def slow_biased(x: torch.Tensor, y: torch.Tensor) -> float:
    h = np.eye(len(x)) - 1 / len(x)
    k, m = (h @ (a @ a.T) @ h for a in (flat(x), flat(y)))
    return np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


def slow_debiased(x: torch.Tensor, y: torch.Tensor) -> float:
    x, y = flat(x), flat(y)
    return song(x, y) / math.sqrt(song(x, x) * song(y, y))


def fed(xs, ys, sizes=(10_000,), **options) -> FlatKernels:
    """All examples in loader batches of these sizes, over and over."""
    made, start, k = FlatKernels(len(xs), len(ys), **options), 0, 0
    while start < len(xs[0]):
        stop = start + sizes[k % len(sizes)]
        made.update([x[start:stop] for x in xs], [y[start:stop] for y in ys])
        start, k = stop, k + 1
    return made


@pytest.mark.parametrize("n", [50, 48, 51, 52])
def test_minibatch_cka_is_the_ratio_of_sums_of_songs_estimator(n):
    # 50: a last minibatch of 2, left out; 52: one of 4, counted.
    xs, ys = maps(n), maps(n, 0)[::-1]
    got = fed(xs, ys, batch=16, keep=0)
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            cell = got.get_kernels(i, j)
            assert cka_minibatch(cell) == pytest.approx(slow_minibatch(x, y, 16), abs=2e-6)
            assert cell[Needs.KERNELS].n == n


def test_cka_of_kept_examples_is_that_of_the_first_ones():
    xs, ys = maps(60, 1), maps(60, 1)[::-1]
    got = fed(xs, ys, sizes=(7, 13), keep=30, batch=8)
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            cell = got.get_kernels(i, j)
            assert cell[Needs.KEPT_KERNELS].n == 30
            assert flat_cka(cell) == pytest.approx(slow_biased(x[:30], y[:30]), abs=2e-6)
            assert flat_cka_debiased(cell) == pytest.approx(slow_debiased(x[:30], y[:30]), abs=2e-6)


def test_fewer_examples_than_are_to_be_kept_are_all_kept_and_more_may_follow():
    xs, ys = maps(40, 2), maps(40, 3)
    got = FlatKernels(3, 3, keep=1000, batch=16)
    for part in (slice(0, 9), slice(9, 25), slice(25, 40)):
        got.update([x[part] for x in xs], [y[part] for y in ys])
        cell = got.get_kernels(1, 0)
        assert {kernels.n for kernels in cell.values()} == {part.stop}
        assert flat_cka(cell) == pytest.approx(slow_biased(xs[1][:part.stop], ys[0][:part.stop]), abs=2e-6)
        assert cka_minibatch(cell) == pytest.approx(slow_minibatch(xs[1][:part.stop], ys[0][:part.stop], 16),
                                                    abs=2e-6)


@pytest.mark.parametrize("sizes", [(1,), (3, 11), (16,), (17,), (64,)])
def test_how_the_loader_batches_changes_no_digit(sizes):
    xs, ys = maps(53, 4, mean=10), maps(53, 5, mean=10)
    once, parts = fed(xs, ys, batch=16, keep=20), fed(xs, ys, sizes, batch=16, keep=20)
    assert all(once.get_kernels(i, j) == parts.get_kernels(i, j) for i in range(3) for j in range(3))


def test_the_minibatch_size_changes_the_number():
    xs, ys = maps(64, 6), maps(64, 7)
    values = {b: fed(xs, ys, batch=b).get_kernels(0, 1) for b in (8, 32)}
    assert abs(cka_minibatch(values[8]) - cka_minibatch(values[32])) > 1e-3


@pytest.mark.parametrize("mean", [10, 1000, 100_000])
def test_a_mean_of_many_standard_deviations_costs_no_digits(mean):
    # Multiples of 1/64, so that float32 holds the shifted numbers too.
    xs = [(x * 64).round() / 64 for x in maps(48, 8)]
    ys = [(y * 64).round() / 64 for y in maps(48, 9)]
    plain, shifted = fed(xs, ys, batch=16), fed([x + mean for x in xs], [y - mean for y in ys], batch=16)
    for function in (cka_minibatch, flat_cka, flat_cka_debiased):
        expected = function(plain.get_kernels(0, 1))
        assert function(shifted.get_kernels(0, 1)) == pytest.approx(expected, abs=1e-6)
    assert cka_minibatch(shifted.get_kernels(0, 1)) == pytest.approx(slow_minibatch(xs[0], ys[1], 16),
                                                                     abs=2e-6)


def test_a_mean_that_drifts_through_the_data_is_taken_out_of_every_minibatch():
    drift = torch.arange(48.0).div(16, rounding_mode="floor")[:, None]
    x, y = (t.flatten(1) + 1000 * drift for t in (maps(48, 10)[0], maps(48, 11)[1]))
    cell = fed([x], [y], batch=16).get_kernels(0, 0)
    assert cka_minibatch(cell) == pytest.approx(slow_minibatch(x, y, 16), abs=1e-5)


def test_more_features_than_are_worked_on_at_a_time():
    x, y = maps(20, 12, shapes=((4, 60, 70), (9000,)))
    cell = fed([x], [y], batch=8, keep=20).get_kernels(0, 0)
    assert cka_minibatch(cell) == pytest.approx(slow_minibatch(x, y, 8), abs=2e-6)
    assert flat_cka_debiased(cell) == pytest.approx(slow_debiased(x, y), abs=2e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_precision_of_the_products(precision):
    x, y = (t.double() for t in maps(40, 13)[:2])
    got = cka_minibatch(fed([x], [y], batch=20, precision=precision).get_kernels(0, 0))
    assert got == pytest.approx(slow_minibatch(x, y, 20), abs=1e-13 if precision == torch.float64 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_narrow_types_are_widened_before_any_product(dtype):
    x, y = ((t * 20).to(dtype) for t in maps(40, 14)[:2])
    got = fed([x], [y], batch=20).get_kernels(0, 0)
    assert cka_minibatch(got) == pytest.approx(slow_minibatch(x, y, 20), abs=2e-6)


def test_memory_formats_may_change_between_batches():
    x, y = maps(32, 15)[0], maps(32, 16)[1]
    got = FlatKernels(1, 1, batch=16)
    for start, form in ((0, torch.channels_last), (10, torch.contiguous_format), (25, torch.channels_last)):
        stop = {0: 10, 10: 25, 25: 32}[start]
        got.update([x[start:stop].contiguous(memory_format=form)], [y[start:stop]])
    assert cka_minibatch(got.get_kernels(0, 0)) == pytest.approx(slow_minibatch(x, y, 16), abs=2e-6)


def test_channels_last_and_channels_first_are_the_same_and_neither_is_turned_round():
    x, y = maps(32, 15)[0], maps(32, 16)[0]
    last = x.contiguous(memory_format=torch.channels_last)
    assert fed([last], [y])._sites[0].flatten(last).data_ptr() == last.data_ptr()
    turned = [t.permute(0, 2, 3, 1) for t in (x, y)]
    assert cka_minibatch(fed([x], [y], batch=16).get_kernels(0, 0)) == pytest.approx(
        cka_minibatch(fed(turned[:1], turned[1:], batch=16).get_kernels(0, 0)), abs=1e-6)


def test_self_stitching_holds_the_tensors_once_and_gives_the_same():
    xs = maps(50, 17)
    both, same = fed(xs, xs, batch=16, keep=20), fed(xs, xs, batch=16, keep=20, same=True)
    assert all(both.get_kernels(i, j) == same.get_kernels(i, j) for i in range(3) for j in range(3))
    assert 2 * same.nbytes == both.nbytes
    assert cka_minibatch(same.get_kernels(1, 1)) == flat_cka_debiased(same.get_kernels(1, 1)) == 1


def test_memory_is_known_before_it_is_taken():
    xs, ys = maps(40, 26), maps(40, 27)[:2]
    got = FlatKernels(3, 2, keep=40, batch=16)
    planned = got.nbytes_planned([24, 30, 7, 24, 30])
    got.update([x[:10] for x in xs], [y[:10] for y in ys])
    assert got.nbytes == (40 + 16 + 1) * (24 + 30 + 7 + 24 + 30) * 4 < planned
    got.update([x[10:] for x in xs], [y[10:] for y in ys])
    assert got.nbytes == (16 + 1) * (24 + 30 + 7 + 24 + 30) * 4
    assert FlatKernels(3, 2, keep=40, batch=16, precision=torch.float64).nbytes_planned([24] * 5) > planned


def test_declared_invariances_hold_and_scaling_of_single_features_is_none():
    x, y = (t.flatten(1) for t in maps(48, 28)[:2])
    g = torch.Generator().manual_seed(29)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=g))[0]
    base, changed = cka_minibatch(fed([x], [y], batch=16).get_kernels(0, 0)), torch.linspace(0.1, 5, 24)
    for moved in (x + 3, x * 7, x[:, torch.randperm(24, generator=g)], x @ rotation):
        assert cka_minibatch(fed([moved], [y], batch=16).get_kernels(0, 0)) == pytest.approx(base, abs=2e-6)
    assert abs(cka_minibatch(fed([x * changed], [y], batch=16).get_kernels(0, 0)) - base) > 1e-3


@pytest.mark.parametrize(("n", "words"), [(1, "one row"), (2, "at least 4"), (3, "at least 4")])
def test_too_few_examples_is_a_reason(n, words):
    xs, ys = maps(n, 30), maps(n, 31)
    cell = fed(xs, ys).get_kernels(0, 0)
    assert words in why(MINIBATCH, cell)
    assert words in why(DEBIASED, cell)
    assert ("nothing varies" in why(BIASED, cell)) == (n == 1)


def test_four_examples_are_enough():
    xs, ys = maps(4, 32), maps(4, 33)
    cell = fed(xs, ys).get_kernels(0, 1)
    assert cka_minibatch(cell) == pytest.approx(slow_debiased(xs[0], ys[1]), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-3, 12345.678])
def test_constant_representations_have_no_number_whatever_the_constant(value):
    x, y = maps(40, 34)[0], torch.full((40, 3, 5), value)
    cell = fed([x], [y], sizes=(9,), batch=16, keep=20).get_kernels(0, 0)
    assert {kernels.constant for kernels in cell.values()} == {("target",)}
    assert why(MINIBATCH, cell) == "constant target representation"
    assert why(BIASED, cell) == why(DEBIASED, cell) == "constant target representation"
    both = fed([y], [y], same=True, batch=16).get_kernels(0, 0)
    assert both[Needs.KERNELS].constant == ("source", "target")


def test_differences_by_rounding_are_none():
    x = maps(40, 34)[0]
    y = 5 + torch.randint(-1, 2, (40, 50), generator=torch.Generator().manual_seed(0)) * 2.0**-21
    assert fed([x], [y], batch=16).get_kernels(0, 0)[Needs.KERNELS].constant == ("target",)
    assert fed([x], [5 + 20 * (y - 5)], batch=16).get_kernels(0, 0)[Needs.KERNELS].constant == ()


def test_constant_among_the_kept_only():
    x, y = maps(40, 35)[:2]
    y[:20] = y[0]
    cell = fed([x], [y], sizes=(9,), batch=16, keep=20).get_kernels(0, 0)
    assert [cell[kind].constant for kind in (Needs.KERNELS, Needs.KEPT_KERNELS)] == [(), ("target",)]
    assert not why(MINIBATCH, cell)
    assert why(BIASED, cell)


def test_constant_within_every_minibatch_is_not_constant_but_has_no_signal():
    x = maps(40, 36)[0]
    y = torch.arange(40).div(8, rounding_mode="floor")[:, None].float() + 0.1
    cell = fed([x], [y], batch=8, keep=40).get_kernels(0, 0)
    assert cell[Needs.KERNELS].constant == ()
    assert "unbiased HSIC of the target with itself is not positive" in why(MINIBATCH, cell)
    assert not why(BIASED, cell)
    assert not why(DEBIASED, cell)


def test_examples_that_are_all_equally_far_apart_have_no_unbiased_number():
    # The unbiased estimator sees distances less their means, and there is nothing left of them but rounding.
    x, y = torch.eye(32) * 3.7 + 0.3, maps(32, 38)[0]
    cell = fed([x], [y], batch=16).get_kernels(0, 0)
    assert "HSIC of the source with itself is not positive" in why(MINIBATCH, cell)
    assert "HSIC of the source" in why(DEBIASED, cell)
    assert flat_cka(cell) == pytest.approx(slow_biased(x, y), abs=1e-6)


def test_signal_just_above_rounding_is_kept():
    # Equidistant examples, of which the estimator sees nothing, beside signal of one part in ten thousand.
    signal, y = torch.randn(16, 5, generator=torch.Generator().manual_seed(39)), maps(16, 40)[0]
    cell = fed([torch.cat([100 * torch.eye(16), signal], 1)], [y], batch=16).get_kernels(0, 0)
    assert cka_minibatch(cell) == pytest.approx(slow_debiased(signal, y), abs=1e-3)


def test_no_examples_kept():
    xs, ys = maps(20, 41), maps(20, 42)
    cell = fed(xs, ys, keep=0).get_kernels(0, 0)
    assert why(BIASED, cell) == why(DEBIASED, cell) == "no rows: nothing varies"
    assert math.isnan(cell[Needs.KEPT_KERNELS].biased.xy)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["source", "target"])
def test_nan_and_inf_are_refused_and_leave_everything_as_it_was(bad, side):
    xs, ys = maps(40, 43), maps(40, 44)
    got, clean = fed(xs, ys, batch=16), fed(xs, ys, batch=16)
    broken = {"source": [x.clone() for x in xs], "target": [y.clone() for y in ys]}
    broken[side][1].view(-1)[5] = bad
    with pytest.raises(NonFiniteError) as e:
        got.update(broken["source"], broken["target"])
    assert (e.value.side, e.value.index) == (side, 1)
    assert got.get_kernels(0, 1) == clean.get_kernels(0, 1)


def test_large_finite_numbers_are_no_overflow():
    x, y = maps(16, 45)[:2]
    big = x * 1e17
    big[0] = big[0] + 3e37  # the sum over the batch overflows float32
    assert FlatKernels(1, 1)._check_tensors([big.repeat(30, 1, 1, 1)], [y.repeat(30, 1, 1)])


@pytest.mark.parametrize(("xs", "ys", "words"), [
    ([torch.zeros(5, 2)], [torch.zeros(5, 2), torch.zeros(5, 2)],
     "expected 1 sources and 1 targets, got 1 and 2"),
    ([torch.zeros(5, 2)], [torch.zeros(4, 2)], "same examples"),
    ([torch.zeros(5, 3)], [torch.zeros(5, 2)], r"shape \(2,\) as before, got \(3,\)"),
])
def test_batches_that_do_not_fit(xs, ys, words):
    got = FlatKernels(1, 1)
    got.update([torch.ones(3, 2)], [torch.ones(3, 2)])
    with pytest.raises(SutureError, match=words):
        got.update(xs, ys)


@pytest.mark.parametrize(("options", "words"), [
    ({"batch": 3}, "at least 4 examples, got 3"), ({"keep": -1}, "keep=0"), ({"same": True}, "same=False"),
])
def test_arguments_out_of_range(options, words):
    with pytest.raises(SutureError, match=words):
        FlatKernels(1, 2, **options)


def test_nothing_seen():
    with pytest.raises(SutureError, match="call update first"):
        FlatKernels(1, 1).get_kernels(0, 0)
    got = FlatKernels(1, 1)
    got.update([torch.zeros(0, 3)], [torch.zeros(0, 3)])
    assert got.examples == 0


def test_unbiased_hsic_of_a_matrix_with_itself_is_never_negative_and_cka_within_one():
    # It is an inner product of U-centred matrices (Székely and Rizzo 2014), whatever n, width and signal.
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        n, p, q = (int(v) for v in torch.randint(4, 40, (3,), generator=g))
        cell = fed([torch.randn(n, p, generator=g)], [torch.randn(n, q, generator=g)],
                   batch=8).get_kernels(0, 0)
        minibatch, kept = cell[Needs.KERNELS], cell[Needs.KEPT_KERNELS]
        assert min(minibatch.unbiased.xx, minibatch.unbiased.yy, kept.unbiased.xx) > 0
        assert max(abs(cka_minibatch(cell)), abs(flat_cka_debiased(cell))) <= 1 + 1e-9
        assert MINIBATCH(replace(minibatch, unbiased=replace(minibatch.unbiased, xy=0.0))).value == 0
