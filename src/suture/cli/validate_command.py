"""The command `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from suture.cli.console import print_notes, show_progress, split_names
from suture.cli.entry_point import clean, console
from suture.cli.options import command, list_parameters
from suture.studies import StudyFile, ValidateOptions, Validation, validate_file

_TESTS = ("measures", "by", "controls", "control_targets", "sensitivity")
_SIGNS = {True: "passed", False: "failed", None: ""}


@command(list_parameters(ValidateOptions, only=_TESTS))
def validate(
    spec: Annotated[Path, typer.Argument(help="TOML file of a study (docs/studies.md): its networks are the "
                                              "population.")],
    groups: Annotated[str | None, typer.Option(
        help="Kinds of groups to train and test beside: random labels, shortcut, augmentation. Names "
             "separated by commas.")] = None,
    **options: Any,
) -> None:
    """Test similarity measures on the networks of a study's TOML file: table, page, figure."""
    given = StudyFile.read(spec)
    print_notes(f"{spec.name} runs code: {name}" for name in given.code)
    with show_progress() as progress:
        made = validate_file(given, tuple(split_names(groups) or ()), progress,
                             **{name: options[name] for name in _TESTS})
    print_validation(made)
    console.print(f"\nresults: {clean(str(given.folder / 'validation'))}", soft_wrap=True)


def print_validation(made: Validation) -> None:
    """Print what was found, the warnings, and a line for each test and measure."""
    for sentence in made.findings:
        console.print(clean(sentence), soft_wrap=True)
    print_notes(made.warnings)
    table = Table(Column("test", overflow="fold"), Column("measure", overflow="fold"), Column("effect"),
                  Column("95 %"), Column("p"), Column("", overflow="fold"))
    for outcome in made.outcomes:
        low = "" if outcome.low != outcome.low else f"{outcome.low:.2f} to {outcome.high:.2f}"
        effect = "–" if outcome.effect != outcome.effect else f"{outcome.effect:.2f}"
        table.add_row(clean(outcome.test), clean(outcome.measure), effect, low,
                      "" if outcome.p != outcome.p else f"{outcome.p:.2g}",
                      clean(outcome.reason) if outcome.effect != outcome.effect else _SIGNS[outcome.passed])
    console.print(table)
