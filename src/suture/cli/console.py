"""Printing for all commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.table import Column, Table

from suture._base import Progress, TerminalBars, expect, format_bytes, is_switched_off, open_display
from suture.cli.entry_point import clean, console, problems
from suture.compare import DryRun
from suture.results import Comparison, summarise_findings


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Yield a progress function that draws bars of the last stages, on stderr if it is a terminal."""
    if not problems.is_terminal or is_switched_off():
        yield lambda stage, done, total: None
        return
    with open_display(TerminalBars(problems, keeps=True)) as progress:
        yield progress


def print_dry_run(found: DryRun) -> None:
    table = Table(Column("network"), Column("site", overflow="fold"), "representation", "rows per example")
    sides = ([(found.names[0], found.source)]
             + [(found.names[1], found.target)] * (found.target is not found.source))
    for name, infos in sides:
        for k, info in enumerate(infos):
            table.add_row("" if k else clean(name), clean(str(info.site)), str(info.shape),
                          str(info.shape.rows))
    console.print(table)
    n_fit, n_test = ("an unknown number of" if n is None else f"{n:,}" for n in found.examples)
    console.print(f"{n_fit} examples to fit, {n_test} to test; {found.micro_batch} at a time on "
                  f"{found.device}; sums of all cells {format_bytes(found.state)}", soft_wrap=True)
    print_notes(found.notes)
    if any(s is not None for s in found.seconds.values()):
        parts = (f"{stage} {format_duration(s)}" for stage, s in found.seconds.items() if s is not None)
        console.print(f"about {', '.join(parts)}, by a few examples; reading data "
                      "and trained detectors come on top", soft_wrap=True)
    print_notes(filter(None, [found.warning]))


def format_duration(seconds: float) -> str:
    """Return seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_verdict(comparison: Comparison, notes: bool = True) -> None:
    """Print what a comparison found, and its notes."""
    console.print(f"\n{clean(comparison.source)} -> {clean(comparison.target)}", style="bold")
    found = summarise_findings(comparison)
    if found.first:
        console.print(f"  {clean(found.first)}", style="bold", soft_wrap=True)
    for sentence in found.sentences:
        console.print(f"  {clean(sentence)}", soft_wrap=True)
    if notes:
        first = found.first.lower()
        print_notes([note for note in comparison.meta["notes"] if note.lower() not in first], "  ")


def print_notes(notes: Iterable[str], indent: str = "") -> None:
    for note in notes:
        console.print(f"{indent}note: {clean(note)}", soft_wrap=True)


def split_names(names: str | None) -> list[str] | None:
    r"""Split comma separated names; None gives None, and there is at least one.

    The comma in ``@tokens:1,14x14`` and one after a backslash are part of a name.
    """
    if names is None:
        return None
    parts = re.findall(r"(?:\\.|[^\\,]|\\$|,(?=\s*\d+x\d+\s*(?:,|$)))+", names, re.DOTALL)
    found = [n for part in parts if (n := re.sub(r"(?<!\\)\s+$", "", part.lstrip()))]
    expect(bool(found), "names separated by commas", repr(names), "leave the option out")
    return found
