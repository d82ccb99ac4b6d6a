"""A comparison in memory: its rules, its matrices, its words, and its table as text."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest

from suture._base.errors import SutureError
from suture.results.measured import COLUMNS, format_csv
from tests.support.comparisons import one_cell
from tests.support.synthetic import NAMES, comparison


@pytest.mark.parametrize("change", [
    {"source": "C"}, {"same_network": True}, {"meta": {"seed": 1}}, {"arrays": {"x": np.zeros(1)}}])
def test_equals_sees_every_field(change):
    assert one_cell().equals(one_cell())
    assert not one_cell().equals(one_cell(**change))
    assert not one_cell(0.5).equals(one_cell(0.5 + 1e-16 * 2))
    double, single = ({"x": np.zeros(1, dtype=dtype)} for dtype in (np.float64, np.float32))
    assert not one_cell(arrays=double).equals(one_cell(arrays=single))


@pytest.mark.parametrize(("change", "message"), [
    ({"value": np.nan}, "a reason for every missing value"),
    ({"reason": "odd"}, "no reason where there is a value"),
    ({"arrays": {"x": np.array(["a"])}}, "booleans, integers or floats as 'x'"),
    ({"arrays": {"x": [1, 2]}}, "got list"), ({"meta": {"x": object()}}, "JSON"),
    ({"sources": ("a", "a")}, "every source site once"),
    ({"targets": ("c",)}, "unknown target in the table 'b'")])
def test_the_rules_of_a_comparison(change, message):
    with pytest.raises(SutureError, match=message):
        one_cell(**change)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda t: t.drop(columns="n"), "expected the columns"),
    (lambda t: pd.concat([t, t]), "one row per cell"),
    (lambda t: t.assign(measure="ckaa"), "nearest: cka"),
    (lambda t: t.assign(reason=None), "expected strings"),
    (lambda t: t.assign(value="high"), "expected numbers")])
def test_the_rules_of_its_table(edit, message):
    with pytest.raises(SutureError, match=message):
        one_cell(table=edit(one_cell().table))


def test_measures_come_in_the_order_of_the_table_of_measures():
    shuffled = comparison().table.sample(frac=1, random_state=0)
    assert replace(comparison(), table=shuffled).measures == NAMES


def test_matrices_are_labelled_and_ordered():
    given = comparison(5, 3, same_network=False)
    shuffled = replace(given, table=given.table.sample(frac=1, random_state=0))
    for name in given.measures:
        for what in ("value", "low", "high", "n", "reason"):
            matrix = shuffled.matrix(name, what)
            assert (matrix.index.name, matrix.columns.name) == ("source", "target")
            assert tuple(matrix.index) == given.sources
            assert tuple(matrix.columns) == given.targets
            for _, row in given.table[given.table["measure"] == name].iterrows():
                got = matrix.loc[row["source"], row["target"]]
                assert got == row[what] or (pd.isna(got) and pd.isna(row[what]))


def test_cells_that_were_not_computed():
    given = comparison(2, 2, missing=False)
    fewer = replace(given, table=given.table.iloc[1:])
    assert np.isnan(fewer.matrix("dm.accuracy").iloc[0, 0])
    assert fewer.matrix("dm.accuracy", "reason").iloc[0, 0] == "not computed"
    assert fewer.matrix("dm.accuracy", "reason").iloc[1, 1] == ""


def test_unknown_names():
    with pytest.raises(SutureError, match=r"unknown measure 'dm.acuracy'; nearest: dm.accuracy"):
        comparison().matrix("dm.acuracy")
    with pytest.raises(SutureError, match="unknown column 'lo'; nearest: low"):
        comparison().matrix("cka", "lo")
    with pytest.raises(SutureError, match="unknown measure 'cka'"):
        replace(comparison(), table=pd.DataFrame(columns=COLUMNS)).plot("cka")


def test_plot_draws_into_given_or_new_axes():
    from matplotlib.figure import Figure
    ax = Figure().add_subplot()
    assert comparison().plot("cka", ax=ax) is ax
    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot as plt
    new = comparison().plot("opd", annotate=False)
    assert "OPD" in new.get_title()
    plt.close("all")


def test_its_words_are_short():
    assert len(repr(comparison())) < 600
    assert "4 x 4" in repr(comparison())


def test_csv_text_is_exact():
    table = pd.DataFrame({"a": [0.1 + 0.2, np.nan], "b": ["x,y", "q\"\n\r"], "n": [1, 2]})
    assert format_csv(table) == 'a,b,n\n0.30000000000000004,"x,y",1\n,"q""\n\r",2\n'
