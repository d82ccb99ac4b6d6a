"""The report of comparisons: an HTML page, and figures in a folder named after the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc

from suture._base import (
    FilePath,
    SutureError,
    checked,
    clean_file_name,
    expect,
    options,
    report_errors,
    summarise_error,
)
from suture.results.measured import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAKER = "suture"
"""Name that pages and figures carry as the program that made them, by which suture knows its own."""
_PAGE_MARK = f'<meta name="generator" content="{MAKER}">'.encode()
_FIGURE_MARKS = {".png": f"Software\0{MAKER}".encode(), ".pdf": f"/Creator ({MAKER})".encode()}
_HEAD = 2000
"""Bytes at the start of a page within which its mark stands."""


@options
class ReportOptions:
    """Options of a report.

    Attributes:
        {options}
    """

    figures: Annotated[bool, Doc(
        "Draw each measure as PNG and PDF too, into a folder named after the page: ``a_figures`` beside "
        "``a.html``.")] = False


@checked
def write_report(comparisons: Sequence[Measured], path: FilePath,
                 options: ReportOptions | None = None) -> Path:
    """Write one HTML page for one or several comparisons, and figures if the options ask for them.

    Figures of several comparisons lie in one folder each, such as ``a_figures/2-A-to-B``. Earlier figures of
    the same page are removed first; other files are left alone. Return the page.

    Raises:
        SutureError: there is no comparison, the page or figures cannot be written, or a file with the name of
            a figure is not suture's. Then nothing is written.
    """
    require_matplotlib("a report")
    from suture.results.drawing.files import plan_figures
    from suture.results.page import write_page

    drawn = {}
    if (options or ReportOptions()).figures:
        drawn = {name: plan_figures(measured) for name, measured in _name_folders(comparisons).items()}
    return write_with_figures(Path(path), partial(write_page, comparisons), drawn)


def write_with_figures(page: Path, write: Callable[[Path], Path],
                       drawn: Mapping[str, Mapping[str, Callable[[], Figure]]]) -> Path:
    """Write a page, and figures into a folder beside it.

    Args:
        write: writes the page.
        drawn: functions that draw the figures, by folder within that folder ("" for itself) and name.

    Raises:
        SutureError: as for `write_report`.
    """
    from suture.results.drawing import files

    folder = name_figures_folder(page)
    places = [folder / name for name in drawn]
    expect(all(p.is_dir() for p in {folder, *places} if drawn and os.path.lexists(p)),
           f"a folder for figures at {str(folder)!r}", "a file", "choose another name for the page")
    _refuse_foreign(folder / name / file for name, made in drawn.items() for file in files.name_files(made))
    written = write(page)
    if drawn:
        with report_errors(f"cannot remove the earlier figures in {str(folder)!r}"):
            _remove_figures(folder)
    for name, made in drawn.items():
        files.save_drawn(made, folder / name)
    return written


def require_matplotlib(purpose: str) -> None:
    """Raise a `SutureError` of one line if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SutureError(f"expected matplotlib for {purpose}, it does not import: {summarise_error(error)}; "
                          "write pip install matplotlib") from error


def name_figures_folder(page: Path) -> Path:
    """Return the folder of a page's figures, which no other page of its folder shares."""
    stem = page.name.removesuffix(".html")
    return page.with_name(f"{stem}.figures" if stem == page.name else f"{stem}_figures")


def is_report(path: Path) -> bool:
    """Return True for a page of suture, and for the folder of figures of such a page."""
    if path.is_dir():
        pages = [path.parent / f"{path.name.removesuffix('_figures')}.html",
                 path.parent / path.name.removesuffix(".figures")]
        return any(name_figures_folder(p) == path and is_report(p) for p in pages if p.is_file())
    return _holds(path, _PAGE_MARK, _HEAD)


def _name_folders(comparisons: Sequence[Measured]) -> dict[str, Measured]:
    """Name a folder for each of several comparisons; one alone needs none."""
    if len(comparisons) == 1:
        return {"": comparisons[0]}
    return {f"{k}-{clean_file_name(c.source)[:80]}-to-{clean_file_name(c.target)[:80]}": c
            for k, c in enumerate(comparisons, 1)}


def _refuse_foreign(paths: Iterable[Path]) -> None:
    for path in paths:
        if os.path.lexists(path) and not _is_figure(path):
            raise SutureError(f"expected a new figure or one of suture's at {str(path)!r}, got another file; "
                              "remove it, or choose another name for the page")


def _remove_figures(folder: Path) -> None:
    """Remove suture's figures from a folder and those within, and folders that this empties."""
    for inner in [p for p in folder.glob("*") if p.is_dir() and not p.is_symlink()]:
        _remove_figures(inner)
        if not any(inner.iterdir()):
            inner.rmdir()
    for path in folder.glob("*"):
        if _is_figure(path):
            path.unlink()


def _is_figure(path: Path) -> bool:
    mark = _FIGURE_MARKS.get(path.suffix)
    return mark is not None and _holds(path, mark)


def _holds(path: Path, mark: bytes, length: int = -1) -> bool:
    """Return True if a file, and no link, holds a mark within its first bytes."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return mark in file.read(length)
    except OSError:
        return False
