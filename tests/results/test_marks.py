"""Marks in tables, figures and pages."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

import suture
from suture.results import page
from suture.results.drawing import files
from suture.results.measured import COLUMNS, format_csv
from suture.results.verdicts import describe_marks, list_causes
from tests.results.test_heatmaps import draw_measure
from tests.results.test_saving import VERSION_1
from tests.support import synthetic
from tests.support.comparisons import of_values
from tests.support.pages import Page, render


def marked(text: str = "still improving: by 3.0% <b>; one epoch: no") -> suture.Comparison:
    """All TLM rows of the cells in the first column are marked."""
    made = synthetic.comparison()
    table = made.table
    hit = table["measure"].str.startswith("tlm.") & (table["target"] == made.targets[0])
    return replace(made, table=table.assign(mark=np.where(hit, text, "")))


def test_a_table_has_marks_and_one_of_an_old_folder_without_them_gets_empty_ones(tmp_path: Path) -> None:
    made = synthetic.comparison()
    assert COLUMNS[-1] == "mark"
    with pytest.raises(suture.SutureError, match="expected the columns"):
        replace(made, table=made.table.drop(columns="mark"))
    shutil.copytree(VERSION_1, tmp_path / "old")
    table, document = tmp_path / "old" / "table.csv", tmp_path / "old" / "comparison.json"
    before = table.read_bytes()
    table.write_bytes(format_csv(suture.load(VERSION_1).table.drop(columns="mark")).encode())
    document.write_text(document.read_text().replace(hashlib.sha256(before).hexdigest(),
                                                     hashlib.sha256(table.read_bytes()).hexdigest()))
    assert suture.load(tmp_path / "old").equals(suture.load(VERSION_1))


def test_marks_are_a_labelled_table() -> None:
    made = marked()
    marks = made.marks("tlm.accuracy")
    assert (marks.iloc[:, 0] != "").all()
    assert (marks.iloc[:, 1:] == "").all(axis=None)
    assert marks.equals(made.matrix("tlm.accuracy", "mark"))
    with pytest.raises(suture.SutureError, match="unknown measure"):
        made.marks("tlm.acc")
    few = replace(made, table=made.table.head(1))
    assert (few.marks(few.measures[0]) == "").all(axis=None)


def stars(axes: Any) -> list[tuple[int, int]]:
    return [(round(t.get_position()[1]), round(t.get_position()[0])) for t in axes.texts
            if t.get_text().endswith("*")]


def test_marked_cells_have_a_star_in_heat_maps() -> None:
    made = marked()
    assert stars(made.plot("tlm.accuracy")) == [(k, 0) for k in range(4)]
    assert not stars(made.plot("dm.accuracy"))
    plt.close("all")
    grid = files.draw_overview(made, ["tlm.accuracy", "dm.accuracy"])
    assert [len(stars(ax)) for ax in grid.axes if ax.images] == [4, 0]
    assert stars(files._make_figure(made, "tlm.residual", {}).axes[0]) == [(k, 0) for k in range(4)]


def test_a_cell_without_a_value_has_no_star() -> None:
    given = of_values("tlm.accuracy", [[0.5, np.nan]], [["why", "why"]])
    _, ax = plt.subplots()
    draw_measure(given, "tlm.accuracy", ax, {})
    assert stars(ax) == [(0, 0)]
    plt.close("all")


def test_the_page_marks_cells_and_says_how_many_and_why() -> None:
    text = page.render_page([marked()])
    assert "Task loss matching: 4 of 16 cells are marked (still improving: 4, one epoch: 4)." in text
    n = sum(m.startswith("tlm.") for m in synthetic.NAMES)
    cells = [cell for cell in Page(text).cells if "star" in cell.signs]
    assert len(cells) == 4 * n
    assert all(cell.lines[-1] == "* still improving: by 3.0% <b>; one epoch: no" for cell in cells)
    assert "<b>;" not in text
    plain = render()
    assert "Marked cells" not in plain
    assert not any("star" in cell.signs for cell in Page(plain).cells)
    assert "*</td>" not in plain
    assert "*</td>" in text  # of the tables for readers without scripts


def test_causes_from_outside_are_escaped() -> None:
    text = page.render_page([marked("<script>alert(1)</script>: x")])
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;: 4" in text


def test_words_for_marks() -> None:
    assert describe_marks(["a: 1", "", "a: 2; b: 3"], 3) == "2 of 3 cells are marked (a: 2, b: 1)"
    assert describe_marks(["a: 1"], 1) == "1 of 1 cell is marked (a: 1)"
    assert describe_marks([], 4) == "0 of 4 cells are marked"
    assert list_causes("") == []


def test_cells_that_stopped_early_stay_in_the_training_curve() -> None:
    made = synthetic.comparison()
    losses = made.arrays["tlm.loss"].copy()
    losses[0, 0, 3:] = np.nan
    curve = page.build_loss_curve(replace(made, arrays={**made.arrays, "tlm.loss": losses}))
    assert curve is not None
    assert curve["cells"] == 15, "without early stopping a nan is a failure"
    stopped = page.build_loss_curve(replace(made, arrays={**made.arrays, "tlm.loss": losses,
                                                           "tlm.held_out": losses}))
    assert stopped is not None
    assert stopped["cells"] == 16
