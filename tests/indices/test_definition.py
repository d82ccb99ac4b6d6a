"""Functions of the user's as indices."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from matplotlib.figure import Figure

from suture import SutureError, indices, load
from suture.indices import chosen, of_matrices, own
from suture.numbers import MEASURES, get_measure
from tests.support.matrices import ROOT, Matrix, X, Y, compared


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
    (lambda: own(of_two, low=1, high=1),
     "finite colour limits low < high of index 'of_two', got 1.0 and 1.0"),
    (lambda: own(of_two, high=math.inf), "a finite number, got inf"),
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


def test_own_measures_go_with_the_result_into_another_process(tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["cka", own(of_two, "gap_of_means", low=-1.0, high=2.0, larger_is_more_similar=False,
                        about="Distance of the grand means."), of_a_pair]
    result = compared(names)
    assert result.measures == ["cka", "gap_of_means", "of_a_pair"]
    assert (result.table[result.table["measure"] == "gap_of_means"]["direction"] == "smaller").all()
    assert result.plot("gap_of_means", Figure().add_subplot()).images[0].get_clim() == (-1, 2)
    assert "Distance of the grand means." in result.report(tmp_path / "report.html").read_text()
    result.save(tmp_path / "kept")
    for name in ("gap_of_means", "of_a_pair"):  # which another process does not know
        monkeypatch.delitem(MEASURES, name)
    loaded = load(tmp_path / "kept")
    gap = get_measure("gap_of_means")
    assert loaded.measures == ["cka", "gap_of_means", "of_a_pair"]
    assert (gap.low, gap.high, gap.direction) == (-1.0, 2.0, "smaller")
    assert gap.about == "Distance of the grand means."
    assert loaded.verdict().words


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
