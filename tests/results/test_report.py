"""A report and its files: figures only when asked, in a folder of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from suture import SutureError
from suture.results import ReportOptions, report, write_report
from suture.results.drawing import files
from suture.results.saving import save_measured
from tests.support.comparisons import one_cell
from tests.support.synthetic import comparison

DRAWN = ReportOptions(figures=True)


@pytest.fixture(autouse=True)
def quick_drawing(monkeypatch):
    """Empty figures; drawing has its own tests and takes seconds."""
    for name in ("_make_figure", "draw_overview"):
        monkeypatch.setattr(files, name, lambda *_: Figure(figsize=(0.1, 0.1)))


def list_files(folder):
    return {str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file()}


def test_a_report_is_one_file_unless_figures_are_asked_for(tmp_path):
    assert one_cell().report(tmp_path / "a.html") == tmp_path / "a.html"
    assert list_files(tmp_path) == {"a.html"}
    one_cell().report(tmp_path / "a.html", figures=True)
    assert list_files(tmp_path) == {"a.html", *(f"a_figures/{s}.{k}" for s in ("all", "cka")
                                                for k in ("png", "pdf"))}


@pytest.mark.parametrize("other", ["b.html", "a", "a.htm", "a.html.html"])
def test_reports_side_by_side_share_no_file(tmp_path, other):
    one_cell().report(tmp_path / "a.html", figures=True)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in list_files(tmp_path)}
    one_cell(0.1).report(tmp_path / other, figures=True)
    assert len(list_files(tmp_path)) == 2 * len(before)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_earlier_figures_of_the_page_go_and_other_files_stay(tmp_path):
    two = pd.concat([one_cell().table, one_cell().table.assign(measure="opd")])
    one_cell(table=two).report(tmp_path / "a.html", figures=True)
    folder = tmp_path / "a_figures"
    foreign = {folder / "notes.txt": b"mine", folder / "mine.png": b"\x89PNG", folder / "in/x.pdf": b"%PDF"}
    kept = {str(path.relative_to(folder)) for path in foreign}
    assert (folder / "opd.pdf").exists()
    (folder / "in").mkdir()
    for path, data in foreign.items():
        path.write_bytes(data)
    write_report([one_cell(), one_cell()], tmp_path / "a.html", DRAWN)
    names = [f"{stem}.{kind}" for stem in ("all", "cka") for kind in ("png", "pdf")]
    assert list_files(folder) == kept | {f"{k}-A-to-B/{name}" for k in (1, 2) for name in names}
    one_cell().report(tmp_path / "a.html", figures=True)
    assert list_files(folder) == kept | {*names}
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"in"}
    assert all(path.read_bytes() == data for path, data in foreign.items())


@pytest.mark.parametrize("kind", ["file", "link", "folder", "place"])
def test_a_foreign_file_with_the_name_of_a_figure_is_refused_before_anything_is_written(tmp_path, kind):
    taken = tmp_path / "a_figures" / "cka.png"
    precious = tmp_path / "precious"
    precious.write_text("mine")
    if kind == "place":
        taken = tmp_path / "a_figures"
        taken.write_text("mine")
    else:
        taken.parent.mkdir()
        {"file": lambda: taken.write_text("mine"), "link": lambda: taken.symlink_to(precious),
         "folder": taken.mkdir}[kind]()
    with pytest.raises(SutureError, match="a_figures"):
        one_cell().report(tmp_path / "a.html", figures=True)
    assert not (tmp_path / "a.html").exists()
    assert precious.read_text() == "mine"


def test_names_of_loaded_measures_lead_to_no_other_folder(tmp_path):
    given = comparison(1, 1, detectors=("maha",))
    for name in ("../../x", "/etc/x", "..\\x", "a\0b"):
        given.arrays[f"native.{name}"] = given.arrays["native.maha"]
        given.arrays[f"dm.score_{name}"] = given.arrays["dm.score_maha"]
    names = files.list_files(given)
    assert len(set(names)) == len(names)
    assert all(Path(name).name == name and "\0" not in name and "\\" not in name for name in names)


@pytest.mark.parametrize("name", ["b.html", "b", "b_figures.html", "b.figures.html"])
def test_a_comparison_is_saved_beside_any_of_its_reports(tmp_path, name):
    one_cell().report(tmp_path / name, figures=True)
    save_measured(one_cell(), tmp_path)
    (tmp_path / "c.html").write_text("<html>mine</html>")
    with pytest.raises(SutureError, match=r"c\.html"):
        save_measured(one_cell(), tmp_path)
    (tmp_path / "c.html").unlink()
    (tmp_path / "c_figures").mkdir()
    with pytest.raises(SutureError, match="c_figures"):
        save_measured(one_cell(), tmp_path)


def test_without_matplotlib_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (lambda: one_cell().report(tmp_path / "a.html"), lambda: one_cell().plot("cka")):
        with pytest.raises(SutureError, match="pip install matplotlib") as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not list_files(tmp_path)


def test_the_page_marks_its_maker(tmp_path):
    assert report.is_report(one_cell().report(tmp_path / "a.html"))
    (tmp_path / "b.html").write_text("<html>suture</html>")
    assert not report.is_report(tmp_path / "b.html")
