"""Tables of LaTeX: the form of booktabs, intervals, and names that cannot break them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import suture
from suture.results import write_frame
from suture.results.drawing.latex import escape, format_number
from tests.support.synthetic import comparison


def read_rows(text: str) -> list[list[str]]:
    """The cells of a table, after a check of its form: balanced braces, rules in order, equal rows."""
    assert re.fullmatch(r"(\\begin\{table\}\[t\]\n\\centering\n(\\caption.*\n)?(\\label.*\n)?)?"
                        r"\\begin\{tabular\}\{[lrc]+\}\n\\toprule\n.* \\\\\n"
                        r"\\midrule\n(.* \\\\\n)*\\bottomrule\n"
                        r"(\\multicolumn.* \\\\\n)?\\end\{tabular\}\n(\\end\{table\}\n)?", text)
    bare = re.sub(r"\\[&%$#_{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not set("#%~^") & set(re.sub(r"\$\^\{\*\}\$", "", bare))
    shape = re.search(r"\\begin\{tabular\}\{([lrc]+)\}", text)
    lines = text.split("\\toprule\n")[1].split("\\bottomrule")[0].replace("\\midrule\n", "").splitlines()
    rows = [re.split(r"(?<!\\) & ", line.removesuffix(" \\\\")) for line in lines]
    assert {len(row) for row in rows} == {len(shape[1])}
    return rows


def test_a_measure_with_intervals() -> None:
    given = comparison(3, 2, same_network=False)
    rows = read_rows(given.to_latex("dm.accuracy", digits=2))
    assert rows[0] == ["DM accuracy", *given.targets]
    assert len(rows) == 1 + 2 * 3
    for k, source in enumerate(given.sources):
        value, low, high = (given.matrix("dm.accuracy", what).loc[source]
                            for what in ("value", "low", "high"))
        assert rows[1 + 2 * k] == [source, *(f"{v:.2f}" for v in value)]
        assert rows[2 + 2 * k][1] == rf"{{\scriptsize [{low.iloc[0]:.2f}, {high.iloc[0]:.2f}]}}"
    assert len(read_rows(given.to_latex("dm.accuracy", intervals=False))) == 1 + 3
    assert len(read_rows(given.to_latex("cka"))) == 1 + 3  # which has no intervals


def test_marks_and_missing_values_are_explained() -> None:
    given = comparison(2, 2)
    mark = np.where(given.table["measure"] == "tlm.accuracy", "still improving: 1", "")
    table = given.table.assign(mark=mark)
    marked = replace(given, table=table).to_latex("tlm.accuracy")
    assert all("$^{*}$" in cell for cell in read_rows(marked)[1][1:])
    assert r"\multicolumn{3}{l}{\scriptsize $^{*}$ not to be trusted}" in marked
    missing = given.to_latex("opd")
    assert {c for row in read_rows(missing)[1:] for c in row[1:]} == {"--"}
    assert "-- no value" in missing
    assert "multicolumn" not in given.to_latex("dm.accuracy")


def test_names_are_escaped() -> None:
    given = comparison(7, 7, hostile=True)
    rows = read_rows(given.to_latex("dm.accuracy", caption="50 % of $x_1$", label="tab:a-1"))
    assert rows[0][5] == r"\$\textbackslash{}frac\$"
    assert escape(r"a_b\c{d}~e^f&g%h$i#j<k>") == (
        r"a\_b\textbackslash{}c\{d\}\textasciitilde{}e\textasciicircum{}f\&g\%h\$i\#j\textless{}k\textgreater{}")
    assert escape("a\nb") == "a b"
    assert escape("[2pt]") == "{[}2pt{]}"  # a line that begins so would be a distance
    assert escape("*a") == "{*}a"  # and one that begins so would be a command that ends the line
    assert escape("a--b---c''d") == "a-{}-b-{}-{}-c'{}'d"
    assert escape('"`') == r"{\char34}{`}"  # fonts of the default encoding lack \textquotedbl
    assert r"\caption{50 \% of \$x\_1\$}" in given.to_latex("cka", caption="50 % of $x_1$")


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.0001, "0.000"), (-0.5, "$-$0.500"),
                                             (float("nan"), "--"), (float("inf"), r"$\infty$")])
def test_numbers_of_a_table(value: float, text: str) -> None:
    assert format_number(value, 3) == text


def test_what_latex_could_not_read_is_refused() -> None:
    for options in ({"digits": -1}, {"digits": 40}, {"label": "a}b"}, {"label": "a b"},
                    {"label": "a\n\nb"}):
        with pytest.raises(suture.SutureError):
            comparison(2, 2).to_latex("cka", **options)
    with pytest.raises(suture.SutureError, match="ckaa"):
        comparison(2, 2).to_latex("ckaa")


def test_a_table_of_pandas_with_intervals() -> None:
    frame = comparison(2, 2).table.query("measure == 'dm.accuracy'").set_index("source")
    rows = read_rows(write_frame(frame[["target", "value", "low", "high", "n"]], 2, "", ""))
    assert rows[0] == ["source", "target", "value", "n", r"95\,\% interval"]
    assert rows[1][3] == "200"
    assert rows[1][4].startswith(r"{\scriptsize [")
