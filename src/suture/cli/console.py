"""What all commands print with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from suture.report.findings import findings
from suture.results import Comparison

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Compare the inner representations of neural networks by stitching them together.")
# Names are anyone's: neither `:name:` nor numbers in them are ours to decorate.
console, problems = (Console(stderr=e, emoji=False, highlight=False) for e in (False, True))


@contextmanager
def bars() -> Iterator[Any]:
    """Progress bars, one for each stage, drawn on stderr where that is a terminal."""
    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                  TimeRemainingColumn(), console=problems, disable=not problems.is_terminal) as shown:
        tasks: dict[str, TaskID] = {}

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield progress


def print_verdict(comparison: Comparison) -> None:
    console.print(f"\n{escape(comparison.source)} -> {escape(comparison.target)}", style="bold")
    found = findings(comparison)
    for sentence in filter(None, [*found.cells, *found.shown, found.summary, found.gap]):
        console.print(f"  {escape(sentence)}", soft_wrap=True)
    for note in comparison.meta["notes"]:
        console.print(f"  note: {escape(note)}", soft_wrap=True)


def listed(names: str | None) -> list[str] | None:
    return None if names is None else [n.strip() for n in names.split(",") if n.strip()]
