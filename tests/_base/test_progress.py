"""Progress is shown where somebody looks, once, and changes nothing that is computed."""

from __future__ import annotations

import inspect
import io
import logging
import multiprocessing.process
import os
import sys
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from tqdm import tqdm

import suture
from suture import SutureError, zoo
from suture._base import LOG, display_progress, log_event
from suture._base.reporting import display, notebook_bars, stage_rows
from suture._base.reporting.lines import SETTING_UP
from suture._base.reporting.stage_rows import StageRows
from suture.networks import Recipe
from tests.support import tiny


class Stream(io.StringIO):
    """Standard output or error, as a terminal or not."""

    def __init__(self, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Stream]:
    """Return a function that makes stdout and stderr a terminal, and returns stderr.

    To be called in the test, because pytest replaces both between the fixtures and the test.
    """
    def make() -> Stream:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv(display.SWITCH, raising=False)
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, Stream())
        return sys.stderr  # type: ignore[return-value]

    return make


def tell(given: Any = None, stages: tuple[str, ...] = ("moments",)) -> list[bool]:
    """Tell of stages in one call and one within it; return if each of the two was heard."""
    with display_progress(given) as outer, display_progress(None) as inner:
        for progress in filter(None, (outer, inner)):
            for stage in stages:
                progress(stage, 1, 2)
        return [outer is not None, inner is not None]


def test_bars_on_a_terminal_and_once(open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    assert tell() == [True, False]
    shown = terminal.getvalue()
    assert shown.index(SETTING_UP) < shown.index("moments")
    assert "1 of 2" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and comes back
    assert tell() == [True, False]


def test_the_display_ends_with_an_error(open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    with pytest.raises(ZeroDivisionError), display_progress(None):
        raise ZeroDivisionError
    assert "\x1b[?25h" in terminal.getvalue()
    assert tell() == [True, False]


def test_one_display_for_threads_that_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    begin = threading.Barrier(3)

    def make() -> Any:  # loads rich, so others begin meanwhile
        time.sleep(0.05)
        made.append(types.SimpleNamespace(start=lambda: None, update=print, stop=lambda: None))
        return made[-1]

    def work() -> None:
        begin.wait()
        with display_progress(None):
            time.sleep(0.05)

    monkeypatch.setattr(display, "_choose_display", lambda given: make)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    with display_progress(None):
        assert len(made) == 2  # the place is free again


def switch_off(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SUTURE_PROGRESS", "0")


def end_in_file(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stderr", Stream(terminal=False))


def end_in_pipe(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stdout", os.fdopen(os.pipe()[1], "w"))


def have_no_streams(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stderr", None)
    patch.setattr(sys, "stdout", None)


def be_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(multiprocessing.process, "parent_process", lambda: object())


def move_never(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("TERM", "dumb")


@pytest.mark.parametrize("change", [switch_off, end_in_file, end_in_pipe, have_no_streams, be_worker,
                                    move_never])
def test_where_nobody_looks(change: Callable[[pytest.MonkeyPatch], None], open_terminal: Callable[[], Stream],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal()
    change(monkeypatch)
    assert tell() == [False, False]
    assert terminal.getvalue() == ""


def test_false_silences_what_is_called_within(open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    assert tell(False) == [False, False]
    assert terminal.getvalue() == ""


def test_a_function_is_called_and_nothing_shown(open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    heard: list[Any] = []
    assert tell(lambda *call: heard.append(call)) == [True, False]
    assert (heard, terminal.getvalue()) == ([("moments", 1, 2)], "")


def test_true_prints_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Stream(terminal=False))
    assert tell(True, ("a\x1b[2J",)) == [True, False]
    assert sys.stderr.getvalue().splitlines() == [  # type: ignore[attr-defined]
        f"suture: {SETTING_UP}", "suture: a\\x1b[2J: 1 of 2"]


def test_half_a_line_stays(open_terminal: Callable[[], Stream]) -> None:
    """Bars begin in a line of their own: a full line of spaces wraps only where something stands already."""
    terminal = open_terminal()
    terminal.write("comparing ... ")
    tell()
    width = Console(file=terminal).width
    assert terminal.getvalue().startswith("comparing ... " + " " * width + "\r")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_logs_on_a_terminal_are_not_drawn_over(name: str, open_terminal: Callable[[], Stream]) -> None:
    open_terminal()
    stream, log = getattr(sys, name), logging.getLogger("tests.of_bars")
    handler = logging.StreamHandler(stream)
    log.addHandler(handler)
    try:
        with display_progress(None):
            assert handler.stream is getattr(sys, name) is not stream  # what prints above the bars
        assert handler.stream is getattr(sys, name) is stream
    finally:
        log.removeHandler(handler)


def test_a_bar_of_tqdm_goes_and_comes_back(open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    with tqdm(total=3, desc="mine", file=terminal) as bar:
        before = len(terminal.getvalue())
        tell()
        cleared, _, rest = terminal.getvalue()[before:].partition("moments")
        assert cleared.startswith("\r")
        assert "mine" not in cleared
        assert "mine" in rest.rpartition("moments")[2]
        bar.update()


def forget(text: str) -> str:
    """Return what takes a text away from a line of a terminal."""
    return "\b" * len(text) + "\x1b[K"


LOADING = "suture: loading PyTorch"


@pytest.mark.parametrize(("loaded", "shown"), [(False, LOADING + forget(LOADING)), (True, "")])
def test_a_line_while_pytorch_is_loading(loaded: bool, shown: str, open_terminal: Callable[[], Stream],
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal()
    monkeypatch.setattr(sys, "modules", {"torch": torch} if loaded else {})
    with suture.say_loading():
        pass
    assert terminal.getvalue() == shown
    monkeypatch.setenv(display.SWITCH, "0")
    with suture.say_loading():
        pass
    assert terminal.getvalue() == shown


# -- notebooks -----------------------------------------------------------------------------------------------

@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The output of a notebook's cell: what was drawn there, one after another."""
    drawn: list[dict[str, str]] = []
    handle = types.SimpleNamespace(update=lambda made, raw: drawn.append(made))

    def show(made: dict[str, str], raw: bool, display_id: bool) -> Any:
        drawn.append(made)
        return handle

    module, shown = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    module.get_ipython = lambda: types.SimpleNamespace(kernel=1)  # type: ignore[attr-defined]
    shown.display = show  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(notebook_bars, "_EVERY", 0.0)
    return drawn


def test_bars_in_a_notebook(cell: list[dict[str, str]]) -> None:
    assert tell(None, ("<b>&", "<b>&", "dm")) == [True, False]
    assert SETTING_UP in cell[0]["text/html"]
    assert "&lt;b&gt;&amp;" in cell[-2]["text/html"]
    assert '<progress value="1" max="2">' in cell[-2]["text/html"]
    assert cell[-2]["text/plain"] == "<b>& 1 of 2\ndm 1 of 2"
    assert cell[-1] == {"text/plain": "", "text/html": ""}
    assert "<script" not in "".join(d["text/html"] for d in cell)


def test_ipython_on_a_terminal_is_no_notebook(cell: list[dict[str, str]], open_terminal: Callable[[], Stream],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: object())
    assert tell() == [True, False]
    assert cell == []
    assert "moments" in terminal.getvalue()


# -- rows ----------------------------------------------------------------------------------------------------

def list_rows(rows: StageRows) -> list[tuple[str, str]]:
    return [(row.stage, row.count) for row in rows.rows]


def test_rows_of_a_study() -> None:
    """A finished stage of a pair makes room for the next; the pairs stay."""
    rows = StageRows()
    rows.update("pairs", 1, 3)
    for pair in ("a into b", "a into c"):
        rows.update(f"{pair}: moments", 1, 2)
        rows.update(f"{pair}: moments", 2, 2)
        rows.update(f"{pair}: dm", 5, None)
    assert list_rows(rows) == [("pairs", "1 of 3"), ("a into b: dm", "5"), ("a into c: dm", "5")]


def test_rows_are_few() -> None:
    rows = StageRows()
    for k in range(20):
        rows.update(f"stage {k}", 1, 1 if k == 16 else 2)
    assert [row.stage for row in rows.rows] == [f"stage {k}" for k in (13, 14, 15, 17, 18, 19)]


def test_a_stage_that_begins_again() -> None:
    rows = StageRows()
    for done in (1, 2, 1):
        rows.update("checking", done, 2)
    assert list_rows(rows) == [("checking", "1 of 2")]


def test_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage began when something was last heard: a tenth in 10 s leaves 90 s, and the end stands still."""
    times = iter((0.0, 10.0, 100.0, 200.0))
    monkeypatch.setattr(stage_rows.time, "monotonic", lambda: next(times))
    rows = StageRows()
    rows.update("train", 1, 10)
    assert rows.rows[0].left == "1:30 left"
    rows.update("train", 10, 10)
    assert rows.rows[0].left == "1:40"
    rows.update("test", 1, 2)
    assert [row.left for row in rows.rows] == ["1:40", "1:40 left"]


# -- public calls --------------------------------------------------------------------------------------------

def arrays() -> dict[str, Any]:
    return {"a": np.random.default_rng(0).random((30, 4))}


SMALL: dict[str, Callable[[Any], Any]] = {
    "compare": lambda p: suture.compare(tiny.network(), None, *tiny.data(), methods=["dm"], ood=None,
                                        progress=p),
    "stitch": lambda p: suture.stitch(tiny.network(), "block1", tiny.network(), "block2", tiny.data()[0],
                                      progress=p),
    "study": lambda p: suture.study({"a": tiny.network(), "b": tiny.other()}, *tiny.data(), methods=[],
                                    ood=None, pairs=[("a", "b")], progress=p),
    "compare_arrays": lambda p: suture.compare_arrays(arrays(), progress=p),
    "two matrices": lambda p: suture.compare_arrays(arrays()["a"], arrays()["a"], progress=p),
    "random_labels": lambda p: suture.controls.random_labels(tiny.network(), tiny.data()[0],
                                                             Recipe(epochs=1), progress=p),
    "grade": lambda p: suture.controls.grade(tiny.network(), *tiny.data(), alterations=["rotated"],
                                             progress=p),
}


@pytest.mark.parametrize("name", SMALL)
def test_public_calls_show_their_progress(name: str, open_terminal: Callable[[], Stream]) -> None:
    terminal = open_terminal()
    SMALL[name](None)
    assert SETTING_UP in terminal.getvalue()
    assert terminal.getvalue().count("\x1b[?25h") == 1
    before = terminal.getvalue()
    SMALL[name](False)
    assert terminal.getvalue() == before


@pytest.mark.parametrize("call", [suture.validate, suture.sensitivity, suture.probe, zoo.train_network,
                                  zoo.train_and_save])
def test_others_take_the_same_option(call: Callable[..., Any]) -> None:
    assert inspect.signature(call).parameters["progress"].default is None


@pytest.mark.parametrize("name", ["compare", "study", "grade", "compare_arrays"])
def test_a_word_is_no_progress(name: str) -> None:
    with pytest.raises(SutureError, match=r"progress.*'bars'"):
        SMALL[name]("bars")


def test_progress_changes_no_number_and_no_key(open_terminal: Callable[[], Stream]) -> None:
    open_terminal()
    shown, hidden, heard = (SMALL["compare"](p) for p in (True, False, lambda *call: None))
    for other in (hidden, heard):
        pd.testing.assert_frame_equal(shown.table, other.table)
        assert shown.meta["made_from"] == other.meta["made_from"]
    assert all(np.array_equal(shown.arrays[k], v) for k, v in hidden.arrays.items())


def test_random_states_stay(open_terminal: Callable[[], Stream]) -> None:
    open_terminal()
    torch.manual_seed(3)
    state, theirs = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tell(None, ("a", "b"))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == theirs  # noqa: NPY002


# -- the logger ----------------------------------------------------------------------------------------------

def test_the_logger_prints_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    assert any(isinstance(h, logging.NullHandler) for h in LOG.handlers)
    log_event("something failed", logging.WARNING)
    log_event("something failed", logging.WARNING, "compare")
    assert capfd.readouterr() == ("", "")


def test_a_comparison_logs_stages_sizes_and_what_it_takes_over(tmp_path: Any) -> None:
    heard: list[tuple[str, str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda r: heard.append((r.name, r.levelname, r.getMessage()))  # type: ignore[method-assign]
    LOG.addHandler(handler)
    LOG.setLevel(logging.DEBUG)
    try:
        for _ in range(2):
            suture.compare(tiny.network(), None, *tiny.data(), methods=[], ood=None, save_to=tmp_path,
                           names=("a\n", "b"))
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(logging.NOTSET)
    assert {name for name, _, _ in heard} == {"suture.compare"}
    first, second = (text for _, level, text in heard if level == "INFO")
    assert first.startswith("a\\n into b: moments, ")
    assert second.startswith("taken over: moments")
    assert "2 x 2 sites" in heard[0][2]
