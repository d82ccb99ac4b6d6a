"""The application that commands register with, and the consoles they print to, without heavy imports."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

# Users' names may contain `:name:` or numbers, so rich must not turn them into emoji or colours.
console, problems = (Console(stderr=e, emoji=False, highlight=False) for e in (False, True))


def make_app() -> typer.Typer:
    """Make an application without commands that knows `--version`."""
    made = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    made.callback(
        help="Compare the inner representations of neural networks by stitching them together.")(_start)
    return made


def _start(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.",
                                                 is_eager=True,
                                                 callback=lambda on: _print_version(on))] = False) -> None:
    pass


def _print_version(on: bool) -> None:
    if on:
        from importlib.metadata import version

        console.print(f"suture {version('suture')}")
        raise typer.Exit


app = make_app()
"""The application of all commands. A command registers when its module is imported."""
