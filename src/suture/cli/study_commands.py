"""Commands of a study that one TOML file describes: run, plan, status, report, gc."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from suture._base import format_bytes
from suture.cli.console import format_duration, print_notes
from suture.cli.entry_point import app, clean, console
from suture.cli.options import command, list_parameters, read_record
from suture.cli.study_display import StudyDisplay
from suture.studies import (
    Study,
    StudyFile,
    StudyReportOptions,
    describe_failures,
    describe_study,
    find_standing,
    list_garbage,
    plan_file,
    remove_garbage,
    run_file,
    write_study_report,
)

SpecArgument = Annotated[Path, typer.Argument(help="TOML file of the study (docs/studies.md).")]
group = typer.Typer(rich_markup_mode=None)
app.add_typer(group, name="study")


@group.callback()
def study() -> None:
    """Compare many networks, as one TOML file says: run, plan, status, report, gc."""


def _read_to_open(path: Path) -> StudyFile:
    """Read a file whose networks and data will be opened, and say what code that runs."""
    spec = StudyFile.read(path)
    print_notes(f"{path.name} runs code: {name}" for name in spec.code)
    return spec


@command(on=group)
def run(spec: SpecArgument) -> None:
    """Train what is to be trained, and compare all pairs; the same command goes on where it was stopped."""
    given = _read_to_open(spec)
    with StudyDisplay() as display:
        made = run_file(given, display.progress, display.tell)
    print_notes(made.meta["notes"])
    _print_findings(made)
    console.print(f"\nresults: {clean(str(given.folder))}", soft_wrap=True)


def _print_findings(made: Study, how: StudyReportOptions | None = None) -> None:
    for sentence in describe_study(made, how or StudyReportOptions()):
        console.print(clean(sentence), soft_wrap=True)


@command(on=group)
def plan(spec: SpecArgument) -> None:
    """What a run would do: pairs, time and disk; it compares and trains nothing."""
    given = _read_to_open(spec)
    found = plan_file(given)
    table = Table(Column("source", overflow="fold"), Column("target", overflow="fold"),
                  Column("state", overflow="fold"))
    for (a, b), state in found.states.items():
        table.add_row(clean(a), clean(b), clean(state))
    console.print(table)
    for name, reason in found.failed.items():
        console.print(f"{clean(name)} cannot be built: {clean(reason)}", soft_wrap=True)
    print_notes(found.notes)
    if found.untrained:
        console.print(f"to train first: {clean(', '.join(found.untrained))}", soft_wrap=True)
    done = len(found.states) - len(found.to_do)
    time = ("" if not found.to_do else ", time unknown" if found.seconds is None else
            f", about {format_duration(found.seconds)} by a few examples of one pair")
    console.print(f"{done} of {len(found.states)} pairs done, {len(found.to_do)} to do{time}"
                  f"{' (trainings come on top)' if found.untrained else ''}", soft_wrap=True)
    size = "unknown before the first" if found.size is None else f"about {format_bytes(found.size)}"
    console.print(f"disk for results: {size}; free: {format_bytes(found.free)}", soft_wrap=True)


@command(on=group)
def status(spec: SpecArgument) -> None:
    """How the last run stands: done, running, failed, to do, time left."""
    given = StudyFile.read(spec)
    found = find_standing(given)
    if found.changed:
        print_notes([f"{spec.name} has changed since the last run; see suture study plan"])
    if found.trained[1]:
        console.print("{} of {} networks trained".format(*found.trained))
    console.print(f"{len(found.done)} done, {len(found.running)} running, {len(found.failed)} failed, "
                  f"{len(found.waiting)} to do")
    for a, b in found.running:
        console.print(f"running: {clean(a)} into {clean(b)}", soft_wrap=True)
    for line in describe_failures(found.failed):
        console.print(clean(line), soft_wrap=True)
    if found.seconds is not None and (found.running or found.waiting):
        console.print(f"about {format_duration(found.seconds)} left, at the pace so far", soft_wrap=True)


@command(list_parameters(StudyReportOptions), on=group)
def report(
    spec: SpecArgument,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: that of the study.")] = None,
    **options: Any,
) -> None:
    """Table as CSV and a page with findings, network map and figures, of what is done."""
    given, how = StudyFile.read(spec), read_record(StudyReportOptions, options)
    made = Study.load(given.folder)
    table, page = write_study_report(made, out or given.folder, how)
    _print_findings(made, how)
    console.print(f"\ntable: {clean(str(table))}\nreport: {clean(str(page))}", soft_wrap=True)


@command(on=group)
def gc(
    spec: SpecArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is listed.")] = False,
) -> None:
    """List results that the file no longer names, and damaged ones; remove them with --yes."""
    given = _read_to_open(spec)
    found = list_garbage(given)
    for path in found:
        console.print(clean(str(path)), soft_wrap=True)
    if yes:
        remove_garbage(found)
    console.print(f"{len(found)} removed" if yes else
                  f"{len(found)} to remove; write --yes to remove them" if found else "nothing to remove")
