"""The command `reproduce`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from suture._base import SutureError, expect
from suture.cli.console import format_duration, print_notes, split_names
from suture.cli.entry_point import clean, console
from suture.cli.options import command, list_parameters, read_record
from suture.cli.study_display import StudyDisplay
from suture.studies import (
    EXPERIMENTS,
    PlannedPart,
    ReproduceOptions,
    Reproduction,
    plan_reproduction,
    read_reproduction,
    run_reproduction,
)

_OPTIONS = ("scale", "folder", "engine", "device")
_PLACES = typer.Option("--data", help="Path of data that the scale needs, as NAME=PATH; may be repeated.")


@command(list_parameters(ReproduceOptions, only=_OPTIONS))
def reproduce(
    experiments: Annotated[list[str], typer.Argument(
        help=f"Experiments, or all: {', '.join(EXPERIMENTS)}.")],
    data: Annotated[list[str] | None, _PLACES] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is done, to do, and how long that may take; "
                                                      "run nothing.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Write the page anew from the records; run "
                                                      "nothing.")] = False,
    **options: Any,
) -> None:
    """The paper's experiments, and a page that says of each claim whether it holds."""
    names: Any = "all" if experiments == ["all"] else [
        name for given in experiments for name in split_names(given) or ()]
    given = read_record(ReproduceOptions, options, experiments=names, data=_read_places(data or []))
    if plan:
        _print_plan(plan_reproduction(given))
        return
    if page:
        made = read_reproduction(given.place, given.scale)
    else:
        with StudyDisplay() as display:
            made = run_reproduction(given, display.progress, display.tell)
    _print(made, made.outcomes if names == "all" else names)


def _read_places(given: list[str]) -> dict[str, str]:
    """Return paths by name."""
    found = {}
    for text in given:
        name, sign, path = text.partition("=")
        expect(bool(name and sign and path), "data as NAME=PATH", repr(text),
               "write --data cifar10=data/cifar10")
        if not Path(path).exists():
            raise SutureError(f"there is nothing at the path of {name}, {path!r}")
        found[name] = path
    return found


def _print(made: Reproduction, names: Iterable[str]) -> None:
    """Print the claims of the named experiments, and below them the headline claims of all records."""
    asked = replace(made, outcomes={name: of for name, of in made.outcomes.items() if name in names})
    for sentence in (*asked.findings, *([""] if asked.findings else []), *made.headlines):
        console.print(clean(sentence), soft_wrap=True)
    console.print(f"\npage: {clean(str(made.page))}", soft_wrap=True)


def _print_plan(parts: list[PlannedPart]) -> None:
    table = Table(Column("experiment"), Column("file", overflow="fold"), Column("networks to train"),
                  Column("pairs done"), Column("to do"), Column("time"))
    for part in parts:
        time = "" if not part.to_do else ("unknown" if part.seconds is None else
                                          f"about {format_duration(part.seconds)}")
        table.add_row(part.experiment, clean(str(part.path)), str(part.untrained), str(part.done),
                      str(part.to_do), time)
    console.print(table)
    print_notes(["pairs that experiments share are counted for each, and computed once; trainings come on "
                 "top, and so does what is trained within a pair, such as detectors"])
