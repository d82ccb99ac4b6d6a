"""Names of indices, functions of the user's, matrices in batches; and the faults of well-known tools."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import suture
from suture import SutureError, indices
from suture.indices import GROUPS, INDICES, Streaming, chosen, of_matrices, own
from suture.indices.table import FLAT_INDICES
from suture.numbers import measures
from tests.support import references, tiny

Matrix = Any
ROOT = Path(__file__).parents[2]


def matrices(n: int = 60, p: int = 5, q: int = 4, seed: int = 0) -> tuple[Matrix, Matrix]:
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, p)) + g.normal(size=p)
    return x, x @ g.normal(size=(p, q)) + g.normal(size=(n, q)) + g.normal(size=q)


X, Y = matrices()


@pytest.fixture(autouse=True)
def _forget_own_measures() -> Iterator[None]:
    before = dict(measures.MEASURES)
    yield
    measures.MEASURES.clear()
    measures.MEASURES.update(before)


def compared(names: Any, **options: Any) -> suture.Comparison:
    return suture.compare(tiny.network(), tiny.other(), *tiny.data(), indices=names, methods=[], device="cpu",
                          **options)


# -- names ---------------------------------------------------------------------------------------------------

def names_of(given: Any) -> list[str]:
    return [r.name for r in chosen(given)]


@pytest.mark.parametrize(("given", "wanted"), [
    ("cka", ["cka"]), (["cka", "cka", "cka@stitch"], ["cka"]), ("svcca:0.9", ["svcca:0.9"]),
    ("svcca:0.99", ["svcca"]), ("gulp:0.1@pool", ["gulp:0.1@pool"]),
    (["opd@pool", "cka"], ["opd@pool", "cka"]), ("jaccard:3", ["jaccard:3"]),
    (["svcca:0.9", "svcca", "svcca:.9"], ["svcca:0.9", "svcca"]), ((), []), (INDICES["opd"], ["opd"]),
    ("default", list(indices.DEFAULT)), ("moments", list(GROUPS["moments"])), ("rows", list(GROUPS["rows"])),
    ("all", [*INDICES][:-1]), ("all@pool", [f"{n}@pool" for n in [*INDICES][:-1]]),
    ("default@paper", [f"{n}@paper" for n in ("cka", "pwcca", "pwcca_target", "opd")]),
    ("all@flatten", ["cka@flatten", "cka_debiased@flatten"]),
    ("cka_minibatch@flatten", ["cka_minibatch@flatten"]),
    (["cka@flatten", "moments@flatten"], ["cka@flatten", "cka_debiased@flatten"]),
    (["svcca:1", "svcca:0.9999999"], ["svcca:1", "svcca:0.9999999"]),
])
def test_what_may_be_written(given: Any, wanted: list[str]) -> None:
    assert names_of(given) == wanted


def test_every_index_stands_once_and_the_groups_part_the_table() -> None:
    assert [*INDICES][-1] == "cka_minibatch"
    assert sorted(GROUPS["moments"] + GROUPS["rows"]) == sorted(GROUPS["all"])
    assert set(FLAT_INDICES) == {"cka", "cka_debiased", "cka_minibatch"}
    for name, index in INDICES.items():
        assert measures.get_measure(name) == index.measure
        low, high = index.measure.native
        assert low <= index.measure.low < index.measure.high <= high
        assert index.source
        assert index.formula
        if index.argument is not None:
            assert index.at(index.argument.default).name == name


@pytest.mark.parametrize(("given", "words"), [
    ("kca", "unknown index 'kca'; nearest: cka"), ("cka@pol", "unknown alignment 'pol'; nearest: pool"),
    ("cka@", "unknown alignment ''"), ("@pool", "unknown index ''"),
    ("cka:3", "index 'cka' takes no number, got '3'"),
    ("svcca:2", "variance of index 'svcca' to be a number from 0.01 to 1, got '2'; write svcca:0.99"),
    ("svcca:", "got ''; write svcca:0.99"), ("svcca:nan", "got 'nan'"), ("svcca:inf@pool", "got 'inf'"),
    ("jaccard:2.5", "a whole number from 1 to 10000, got '2.5'"), ("jaccard:0", "got '0'"),
    ("gulp:x", "got 'x'"),
    ("jaccard@flatten", "for the alignment 'flatten', got 'jaccard'; write jaccard@pool"),
    ("svcca:0.9@paper", "for the alignment 'paper', got 'svcca:0.9'; write svcca:0.9@pool"),
    ("cka_minibatch", "write cka_minibatch@flatten"), ("cka_minibatch@pool", "write cka_minibatch@flatten"),
    ("rows@flatten", "a group with indices that the alignment 'flatten' offers, got 'rows'"),
    ("rows@paper", "got 'rows'; write all@paper"), ("all:3", "got the group in 'all:3'; write 'all'"),
    (None, "expected indices by name, entries or functions, got None; write () for none"), (5, "got 5"),
    ([5], "got 'int' with 0 arguments"), (["cka", None], "got 'NoneType'"), (b"cka", "got 'int'"),
])
def test_what_may_not_be_written_is_refused_in_one_line(given: Any, words: str) -> None:
    for refuse in (chosen, compared):
        with pytest.raises(SutureError) as e:
            refuse(given)
        assert words in str(e.value)
        assert "\n" not in str(e.value)


def test_measures_know_variants_and_their_order() -> None:
    entry = measures.get_measure("svcca:0.9@pool")
    assert (entry.name, entry.label) == ("svcca:0.9@pool", "SVCCA [0.9, pool]")
    assert (entry.low, entry.high, entry.direction) == (0, 1, "larger")
    assert measures.get_measure("opd@paper").direction == "smaller"
    for wrong in ("kca@pool", "cka@pol", "dm.accuracy@pool", "dm.accuracy:3", "cka@", "cka:", "@pool"):
        with pytest.raises(SutureError, match="unknown measure"):
            measures.get_measure(wrong)
    given = ["opd@flatten", "cka@paper", "cka@flatten", "opd@pool", "svcca:0.8", "svcca", "cka@pool", "cka",
             "nothing", "dm.kl"]
    assert measures.sort_measures(given) == ["dm.kl", "cka", "svcca:0.8", "svcca", "cka@pool", "opd@pool",
                                             "cka@flatten", "opd@flatten", "cka@paper"]


VARIANTS = ["cka", "svcca:0.9", "svcca:0.8@pool", "opd@pool", "cka@flatten", "cka@paper", "jaccard:3@pool"]


def test_tables_maps_and_pages_know_variants(tmp_path: Path) -> None:
    network = tiny.network()
    result = suture.compare(network, None, *tiny.data(), indices=VARIANTS, methods=[],
                            device="cpu", jackknife=5)
    assert result.measures == measures.sort_measures(VARIANTS)
    for name in VARIANTS:
        entry = measures.get_measure(name)
        ax = result.plot(name, Figure().add_subplot())
        assert ax.images[0].get_clim() == (entry.low, entry.high)
        assert entry.label in ax.get_title()
    assert set(result.verdict().table["measure"]) == set(VARIANTS)
    html = result.report(tmp_path / "report.html").read_text()
    assert all(measures.get_measure(name).label in html for name in VARIANTS)
    figures = [p.name for p in (tmp_path / "figures").iterdir()]
    assert len({f for f in figures if "svcca" in f and f.endswith("png")}) == 2
    result.save(tmp_path / "kept")
    assert suture.load(tmp_path / "kept").equals(result)


# -- functions of the user's ---------------------------------------------------------------------------------

def of_a_pair(pair: Any) -> float:
    return float(pair.moments.sxy.square().sum())


def of_two(x: Matrix, y: Matrix) -> float:
    return float(abs(x.mean() - y.mean()))


def test_functions_of_a_pair_and_of_two_matrices() -> None:
    found = of_matrices(X, Y, ["cka", of_a_pair, of_two, own(lambda a, b: len(a), "rows_seen")],
                        sample=50, jackknife=5)
    assert list(found) == ["cka", "of_a_pair", "of_two", "rows_seen"]
    xc, yc = X - X.mean(0), Y - Y.mean(0)
    assert found["of_a_pair"].value == pytest.approx(((xc.T @ yc) ** 2).sum())
    assert math.isfinite(found["of_a_pair"].low)
    assert found["rows_seen"].value == 50
    assert of_matrices(X, Y, of_two)["of_two"].value == pytest.approx(of_two(X, Y))


@pytest.mark.parametrize(("make", "words"), [
    (lambda: chosen(lambda x, y: 1.0), "got '<lambda>'; write suture.indices.own"),
    (lambda: own(of_two, "cka"), "that no index has, got 'cka'"),
    (lambda: own(of_two, "all"), "that no index has, got 'all'"),
    (lambda: own(of_two, "svcca:0.9"), "a name of letters, digits and _"),
    (lambda: own(of_two, "a b"), "got 'a b'"), (lambda: own(of_two, "dm.kl"), "got 'dm.kl'"),
    (lambda: own(lambda x, y, z: 1.0, "three"), "with 3 arguments"),
    (lambda: own(cast(Any, print)), "got 'print' with 0 arguments"),
    (lambda: own(of_two, low=1, high=1), "finite colour limits low < high of index 'of_two', got 1 and 1"),
    (lambda: own(of_two, high=math.inf), "got 0.0 and inf"),
    (lambda: chosen([own(of_two, "mine"), own(of_a_pair, "mine")]), "got two functions called 'mine'"),
])
def test_what_is_no_function_for_an_index_or_has_no_name_is_refused(make: Callable[[], Any],
                                                                    words: str) -> None:
    with pytest.raises(SutureError) as e:
        make()
    assert words in str(e.value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("bad", [None, "much", np.ones(3), 1j])
def test_a_function_that_returns_no_number_is_refused_by_name(bad: Any) -> None:
    for name, fn in (("no_number", lambda x, y: bad), ("none_either", lambda pair: bad)):
        with pytest.raises(SutureError,
                           match=f"expected index '{name}' to return a number, got {type(bad).__name__}"):
            of_matrices(X, Y, own(fn, name))


def test_nan_of_a_function_is_a_missing_value() -> None:
    for value in (math.nan, math.inf):
        found = of_matrices(X, Y, own(lambda x, y, v=value: v, "bare"))["bare"]
        assert math.isnan(found.value)
        assert found.reason == "bare is not finite on these data"


def test_own_measures_go_with_the_result_into_another_process(tmp_path: Path) -> None:
    names = ["cka", own(of_two, "gap_of_means", low=-1.0, high=2.0, larger_is_more_similar=False,
                        about="Distance of the grand means."), of_a_pair]
    result = compared(names)
    assert result.measures == ["cka", "gap_of_means", "of_a_pair"]
    assert (result.table[result.table["measure"] == "gap_of_means"]["direction"] == "smaller").all()
    assert result.plot("gap_of_means", Figure().add_subplot()).images[0].get_clim() == (-1, 2)
    assert "Distance of the grand means." in result.report(tmp_path / "report.html").read_text()
    result.save(tmp_path / "kept")
    code = ("import sys, suture; r = suture.load(sys.argv[1]); m = "
            "suture.numbers.measures.get_measure('gap_of_means'); print(r.measures, m.low, m.high, "
            "m.direction, m.about, len(r.verdict().words))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "kept")], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['cka', 'gap_of_means', 'of_a_pair'] -1.0 2.0 smaller Distance of the "
                                  "grand means.")


def mine(text: str, name: str = "mine", **given: Any) -> Any:
    """A function from source, as after an edit."""
    namespace: dict[str, Any] = dict(given)
    exec(text, namespace)
    return own(namespace[name])


BASE = "def mine(x, y):\n    return float(len(x)) + 1\n"


@pytest.mark.parametrize("other", [
    "def mine(x, y):\n    return float(len(x)) + 2\n", "def mine(x, y):\n    return float(len(y))\n",
    "def mine(x, y):\n    return float(sum([v for v in range(len(x)) if v > 2]))\n",
])
def test_earlier_results_of_a_changed_function_are_not_taken_over(other: str) -> None:
    kept = compared(mine(BASE))
    assert compared(mine(BASE), previous=kept).table.equals(kept.table)
    with pytest.raises(SutureError, match="the earlier result is of other networks, data or settings"):
        compared(mine(other), previous=kept)


def key(index: Any) -> str:
    return chosen(index)[0].key


INNER = "def mine(x, y):\n    return float(sum([v for v in range(len(x)) if v > {}]))\n"
CLOSED = ("def make():\n    power = {}\n    def mine(x, y):\n        return float(len(x)) ** power\n"
          "    return mine\n")
DEFAULTS = "def mine(x, y, power={}):\n    return float(len(x)) ** power\n"
NAMED = "def mine(x, y, *, power={}):\n    return float(len(x)) ** power\n"


@pytest.mark.parametrize("text", [INNER, DEFAULTS, NAMED, CLOSED + "mine = make()\n"])
def test_keys_see_comprehensions_defaults_and_closures(text: str) -> None:
    """Two functions that differ there had one key, and so the numbers of one were taken for those of the
    other."""
    one, two, same = (key(mine(text.format(k))) for k in (1, 2, 1))
    assert one == same
    assert one != two


def test_keys_see_partial_arguments_and_functions_that_call_themselves() -> None:
    def power(x: Matrix, y: Matrix, k: int) -> float:
        return float(len(x)) ** k if k < 9 else power(x, y, k - 1)

    one, two, same = (key(own(partial(power, k=k), "powered")) for k in (1, 2, 1))
    assert one == same
    assert one != two
    assert one.startswith("powered#")


def test_a_key_is_the_same_in_every_process() -> None:
    """The order of a set of texts is another one in each process."""
    text = ("def mine(x, y):\n"
            "    return float(str(len(x)) in {'one', 'two', 'three', 'four', 'five', 'six', 'seven'})\n")
    code = f"from suture.indices import chosen\n{text}print(chosen(mine)[0].key)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={"PYTHONHASHSEED": "1", "PATH": ""})
    assert done.stdout.strip() == key(mine(text))


# -- matrices in batches -------------------------------------------------------------------------------------

ROOTS = {"opd_root", "shape_angular", "cka_angular", "shape", "gulp", "size_and_shape"}
"""Rounding of 1e-16 at a zero distance is 1e-8 in a root, and so in an angle."""
EVERYTHING = ["all", "jaccard:3", "cka@flatten", "cka_debiased@flatten", "cka_minibatch@flatten"]


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 30, 58], list(range(1, 60))])
def test_batches_of_rows_change_no_number(cuts: list[int]) -> None:
    options: dict[str, Any] = {"jackknife": 5, "sample": 40, "seed": 2}
    streaming = Streaming(EVERYTHING, **options)
    for x, y in zip(np.split(X, cuts), np.split(Y, cuts), strict=True):
        streaming.update(x, y)
    assert streaming.n == 60
    found, whole = streaming.values(), of_matrices(X, Y, EVERYTHING, **options)
    assert list(found) == list(whole)
    for name, value in whole.items():
        loose = 1e-7 if name in ROOTS else 1e-10
        numbers = [(v.value, v.low, v.high) for v in (found[name], value)]
        assert numbers[0] == pytest.approx(numbers[1], abs=loose, rel=1e-9, nan_ok=True), name
        assert value.reason == found[name].reason == ""


def test_values_may_be_asked_for_on_the_way() -> None:
    streaming = Streaming(EVERYTHING)
    streaming.update(X[:40], Y[:40])
    assert streaming.values() == of_matrices(X[:40], Y[:40], EVERYTHING)
    streaming.update(X[40:], Y[40:])
    assert streaming.values()["cka"].value == pytest.approx(references.cka(X, Y), abs=1e-10)


def test_everything_is_computed_in_float64() -> None:
    """Gram matrices of flattened rows were in float32: their digits were lost to the mean."""
    far = X + 1e6
    for name in ("cka@flatten", "cka_minibatch@flatten", "cka", "cka_debiased"):
        hsic = references.hsic_biased if name in ("cka@flatten", "cka") else references.hsic_unbiased
        for given in (far, far.tolist(), torch.tensor(far)):
            assert of_matrices(given, Y, name)[name].value == pytest.approx(references.cka(X, Y, hsic),
                                                                            abs=1e-7), name


@pytest.mark.parametrize("given", [
    lambda m: m.astype(np.float16), lambda m: torch.tensor(m).half(), lambda m: torch.tensor(m).bfloat16(),
    lambda m: (m * 9).astype(int), lambda m: m > 1, lambda m: torch.tensor(m, requires_grad=True),
    lambda m: m.astype(">f8"), lambda m: m[::-1], lambda m: m.astype(np.uint16),
    lambda m: np.asfortranarray(m),
])
def test_matrices_of_any_real_type(given: Callable[[Matrix], Any]) -> None:
    x, y = given(np.abs(X)), given(np.abs(Y))
    wide = [np.asarray(m.detach().double() if isinstance(m, torch.Tensor) else m, dtype=np.float64)
            for m in (x, y)]
    found, wanted = of_matrices(x, y, EVERYTHING), of_matrices(wide[0], wide[1], EVERYTHING)
    assert {k: v.reason for k, v in found.items()} == {k: v.reason for k, v in wanted.items()}
    assert [v.value for v in found.values()] == pytest.approx([v.value for v in wanted.values()],
                                                              nan_ok=True, rel=1e-9)
    assert found["cka"].reason == ""


@pytest.mark.parametrize(("x", "words"), [
    (X[:-1], "the same rows"), (X[:, 0], r"\(60,\)"), (X[..., None], r"\(60, 5, 1\)"), (X[:0], "shape"),
    (X[:, :0], "expected at least one columns, got 0 and 4"), (X + 1j, "expected real numbers in matrix x"),
    (torch.tensor(X + 1j), "expected real numbers"),
    (X.astype(object), "real numbers in matrix x, got object"), ("abc", "expected x to be a matrix"),
    (None, "expected x to be a matrix"), (3.0, "expected x to be a matrix"),
    (np.where(X > 1.5, np.nan, X), "NaN or inf in matrix x"),
    (np.where(X > 1.5, np.inf, X), "NaN or inf in matrix x"),
    (torch.tensor(X).half() * 1e6, "NaN or inf in matrix x"),
])
def test_what_are_no_two_matrices_is_refused_in_one_line(x: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words) as e:
        of_matrices(x, Y, EVERYTHING)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("names", [["cka"], ["cka@flatten"], ["jaccard"]])
def test_batches_of_other_widths_are_refused_and_change_nothing(names: list[str]) -> None:
    streaming = Streaming(names)
    with pytest.raises(SutureError, match="at least one batch of rows, got none"):
        streaming.values()
    streaming.update(X, Y)
    before = streaming.values()
    for x, y in ((X[:, :3], Y), (X, Y[:, :3]), (np.full((3, 5), np.nan), Y[:3])):
        with pytest.raises(SutureError, match=r"expected 5 and 4 columns, got|NaN"):
            streaming.update(x, y)
    assert streaming.values() == before


@pytest.mark.parametrize("name", ["cka@pool", "cka@paper", "svcca:0.9@pool"])
def test_two_matrices_have_no_positions(name: str) -> None:
    with pytest.raises(SutureError, match=f"got {name!r}; write {name.partition('@')[0]!r}"):
        of_matrices(X, Y, name)


@pytest.mark.parametrize("jackknife", [3, 2.5, -5, True, None])
def test_wrong_blocks_are_quoted(jackknife: Any) -> None:
    with pytest.raises(SutureError,
                       match=rf"0 or a multiple of 5 \(blocks of examples\), got {jackknife!r}; write"):
        of_matrices(X, Y, jackknife=jackknife)


CONSTANT = np.full((60, 5), 0.1)


@pytest.mark.parametrize(("x", "y"), [
    (CONSTANT, Y), (Y, CONSTANT), (CONSTANT, CONSTANT), (X[:1], Y[:1]), (X[:2], Y[:2]), (X[:3], Y[:3]),
    (X[:4], Y[:4]), (X[:, :1], Y), (X, Y[:, :1]),
    (X[:, :1], Y[:, :1]), (np.repeat(X[:1], 60, 0) * [[1]] + 1e-300, Y), (X * 0, Y),
    (np.eye(60)[:, :5], Y), (X + 1e12, Y), (X * 1e60, Y), (X * 1e-60, Y),
    (X * 1e150, Y), (X * 1e-150, Y),
    (np.repeat(X[:2], 30, 0), Y), (X[:, [0, 0, 0]], Y), (matrices(8, 30, 20)[0], Y[:8]),
])
def test_degenerate_matrices_give_a_number_or_a_reason(x: Matrix, y: Matrix) -> None:
    for jackknife in (0, 5):
        for name, value in of_matrices(x, y, EVERYTHING, jackknife=jackknife).items():
            assert math.isnan(value.value) == (value.reason != ""), name
            assert "\n" not in value.reason
            base = INDICES.get(name.partition("@")[0].partition(":")[0])
            assert base is not None
            low, high = base.measure.native
            assert value.reason or low - 1e-6 <= value.value <= high + 1e-6, (name, value)


@pytest.mark.parametrize("name", [n for n, i in INDICES.items() if n != "cka_minibatch"])
def test_fewer_rows_than_the_least_are_a_reason(name: str) -> None:
    least = INDICES[name].least
    for n in range(1, least):
        reason = of_matrices(X[:n], Y[:n], name)[name].reason
        assert reason.startswith("one row" if n == 1 else f"{n} rows: "), (n, reason)


# -- faults of well-known tools (design, section 8) ----------------------------------------------------------

CANONICAL = ("cca", "cca_squared", "svcca", "pwcca", "pwcca_target", "eigenspace_overlap")


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_fault_canonical_correlations_above_one_for_rank_deficient_data(scale: float) -> None:
    g = np.random.default_rng(3)
    low = X @ g.normal(size=(5, 3)) @ g.normal(size=(3, 40)) * scale
    copies = np.hstack([low, low, low + 1e-14 * scale * g.normal(size=low.shape)])
    for name in CANONICAL:
        for x, y in ((low, copies), (copies, Y), (low, low)):
            value = of_matrices(x, y, name)[name]
            assert value.reason == ""
            assert value.value <= 1 + 1e-9, name
            assert value.value == pytest.approx(references.INDICES[name](x, y), abs=1e-6), name


def test_fault_fewer_rows_than_columns_give_confident_nonsense() -> None:
    g = np.random.default_rng(4)
    x, y = g.normal(size=(20, 30)), g.normal(size=(20, 25))
    found = of_matrices(x, y, ["default", *CANONICAL, "r2_folds", "dm_residual"])
    for name in (*CANONICAL, "r2", "r2_folds", "dm_residual"):
        assert "rows" in found[name].reason, name
    assert abs(found["cka_debiased"].value) < 0.2
    assert found["cka"].value > 0.5, "the biased estimator is what it is, and says so by its name"


def test_fault_svcca_keeps_one_component() -> None:
    g = np.random.default_rng(5)
    x = g.normal(size=(300, 6))
    y = np.hstack([x[:, :3], g.normal(size=(300, 3))])
    assert of_matrices(x, y, "svcca:1")["svcca:1"].value == pytest.approx(references.cca(x, y), abs=1e-9)
    assert (of_matrices(x, y, "svcca:0.9")["svcca:0.9"].value
            < 0.8), "one component of each would correlate otherwise"
    for share in (0.3, 0.6, 0.9):
        name = f"svcca:{share:g}"
        assert of_matrices(x, y, name)[name].value == pytest.approx(references.svcca(x, y, share), abs=1e-9)


def test_fault_positions_subsampled_with_a_stride_hit_only_the_top_left_pixel() -> None:
    class Corner(torch.nn.Module):
        """A map whose channel says at which of 16 positions it is."""

        def __init__(self) -> None:
            super().__init__()
            self.block1 = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            place = torch.arange(16.0).view(1, 1, 4, 4).expand(len(x), 1, 4, 4)
            return torch.as_tensor(self.block1(torch.cat([place, x[:, :1, :4, :4]], 1)).mean((2, 3)))

    places: list[Matrix] = []

    def positions(x: Matrix, y: Matrix) -> float:
        places.append(x[:, 0])
        return 0.0

    data = torch.rand(640, 2, 8, 8), torch.zeros(640, dtype=torch.int64)
    suture.compare(Corner(), None, data, indices=positions, methods=[], device="cpu", sites=["block1"])
    counts = np.bincount(places[0].astype(int), minlength=16)
    assert counts.sum() == 640
    assert ((counts > 15) & (counts < 70)).all(), counts


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_fault_a_last_batch_of_fewer_than_four_rows_fails_after_the_whole_pass(last: int) -> None:
    n = 256 + last
    x, y = matrices(n)
    found = of_matrices(x, y, ["cka_minibatch@flatten", "cka_debiased"])
    parts = [(x[:256], y[:256])] + ([(x[256:], y[256:])] if last >= 4 else [])
    sums = [sum(references.hsic_unbiased(*(centred_gram(p[k]) for k in pair)) / (len(p[0]) * (len(p[0]) - 3))
                for p in parts) for pair in ((0, 1), (0, 0), (1, 1))]
    assert found["cka_minibatch@flatten"].value == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]),
                                                                 abs=1e-9)
    names = ["cka_debiased", "cka_minibatch@flatten", "cka_debiased@pool", "all"]
    data = tiny.images(16 + last), tiny.labels(16 + last)
    table = suture.compare(tiny.network(), None, tiny.batches(*data, 16), methods=[], indices=names,
                           device="cpu").table
    assert table.loc[table["measure"].isin(names[:3]), "value"].notna().all()


def centred_gram(x: Matrix) -> Matrix:
    return (x - x.mean(0)) @ (x - x.mean(0)).T


@pytest.mark.parametrize("name", ["svcca:0.9", "cka@pool", "opd@flatten", "jaccard:3@pool", "r2_folds@pool"])
def test_fault_limits_of_maps_are_taken_from_the_data(name: str) -> None:
    result = compared("cka")
    entry = measures.get_measure(name)
    for value in (0.001, 0.4, 7.0):
        table = result.table.assign(measure=name, value=value)
        ax = replace(result, table=table).plot(name, Figure().add_subplot())
        assert ax.images[0].get_clim() == (entry.low, entry.high)


def test_fault_a_mean_of_many_deviations_costs_the_digits() -> None:
    steps: list[tuple[Literal["float32", "float64"], float]] = [("float64", 1e-6), ("float32", 2e-3)]
    for precision, loose in steps:
        class Far(torch.nn.Module):
            def __init__(self, by: float) -> None:
                super().__init__()
                self.by, self.block1 = by, torch.nn.Identity()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.as_tensor(self.block1(x + self.by).mean((2, 3)))

        x = (tiny.images(40) * 64).round() / 64
        names = ["cka", "opd@pool", "cka@pool", "cka_debiased", "cka@flatten", "r2"]
        near, far = (suture.compare(Far(by), tiny.network(), (x, tiny.labels(40)), sites=["block1"],
                                    methods=[], indices=names, precision=precision, device="cpu")
                     for by in (0.0, 1024.0))
        for name in names:
            np.testing.assert_allclose(near.matrix(name), far.matrix(name), atol=loose,
                                       err_msg=f"{precision} {name}")


def test_a_function_that_raises_costs_its_own_value_alone() -> None:
    def picky(x: Matrix, y: Matrix) -> float:
        raise RuntimeError("expected 99 columns\nand more")

    found = of_matrices(X, Y, ["cka", picky])
    assert not found["cka"].reason
    assert found["picky"].reason == "picky fails with RuntimeError: expected 99 columns"


def test_a_function_of_the_users_takes_an_alignment() -> None:
    def mine(x: Matrix, y: Matrix) -> float:
        return float(len(x))

    assert [r.name for r in indices.chosen([indices.Request(indices.own(mine), "pool")])] == ["mine@pool"]
    with pytest.raises(SutureError, match="alignment 'flatten'"):
        indices.chosen(indices.Request(indices.own(mine), "flatten"))


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(SutureError, match="different lengths"):
        of_matrices([[1.0, 2.0], [3.0]], Y)
