"""The command `reproduce`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from suture._base import expect
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

_OPTIONS = ("scale", "folder", "seeds", "engine", "device")
_PLACES = typer.Option("--data", help="Path of data that the scale needs, as NAME=PATH; may be repeated.")


@command(list_parameters(ReproduceOptions, only=_OPTIONS))
def reproduce(
    experiments: Annotated[list[str], typer.Argument(
        help=f"Experiments, or single files of them such as E1.toml, or all: {', '.join(EXPERIMENTS)}.")],
    data: Annotated[list[str] | None, _PLACES] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is done, to do, and how long that may take; "
                                                      "run nothing.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Write the page anew from the records; run "
                                                      "nothing.")] = False,
    **options: Any,
) -> None:
    """The paper's experiments, and a page that says of each claim whether it holds."""
    expect(not (plan and page), "--plan or --page", "both")
    names = [name for given in experiments for name in split_names(given) or ()]
    given = read_record(ReproduceOptions, options, experiments=names, data=_read_places(data or []))
    asked = {each.file.experiment for each in given.choose_files()}
    if plan:
        _print_plan(plan_reproduction(given))
        return
    if page:
        made = read_reproduction(given.place, given.scale)
    else:
        with StudyDisplay() as display:
            made = run_reproduction(given, display.progress, display.tell)
    _print(made, asked)


def _read_places(given: list[str]) -> dict[str, str]:
    """Return paths by name."""
    found = dict[str, str]()
    for text in given:
        name, sign, path = text.partition("=")
        expect(bool(name and sign and path), "data as NAME=PATH", repr(text),
               "write --data cifar10=data/cifar10")
        expect(name not in found, f"one path of {name}", f"{found.get(name)!r} and {path!r}")
        found[name] = path
    return found


def _print(made: Reproduction, names: Iterable[str]) -> None:
    """Print the claims of the named experiments, and below them the headline claims of all records."""
    asked = replace(made, outcomes={name: of for name, of in made.outcomes.items() if name in names})
    for sentence in (*asked.findings, *([""] if asked.findings else []), *made.headlines):
        console.print(clean(sentence), soft_wrap=True)
    console.print(f"\npage: {clean(str(made.page))}", soft_wrap=True)


def _print_plan(parts: list[PlannedPart]) -> None:
    table = Table(Column("file", overflow="fold"), "to train", "pairs done", "to do", "time", "record")
    for part in parts:
        table.add_row(clean(part.path.name), *map(_show_number, (
            part.untrained, part.done, part.to_do)), clean(_tell_time(part)),
            "written" if part.recorded else "")
    console.print(table)
    for part in parts:
        if part.lacks:
            console.print(f"{clean(part.path.name)} needs {clean(', '.join(part.lacks))}: write "
                          f"{clean(' '.join(f'--data {name}=PATH' for name in part.lacks))}", soft_wrap=True)
    print_notes(["pairs that experiments share are counted for each, and computed once; trainings come on "
                 "top, and so does what is trained within a pair, such as detectors, and experiments that "
                 "compare no pairs"])


def _show_number(number: int | None) -> str:
    return "–" if number is None else str(number)


def _tell_time(part: PlannedPart) -> str:
    if part.lacks:
        return "data missing"
    if not part.to_do:
        return ""
    return "unknown" if part.seconds is None else f"about {format_duration(part.seconds)}"
