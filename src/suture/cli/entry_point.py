"""The entry point: find the command, import its module, turn errors into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer
from rich.console import Console
from rich.markup import escape

import suture

# Users' names may contain `:name:` or numbers, so rich must not turn them into emoji or colours.
console, problems = (Console(stderr=e, emoji=False, highlight=False) for e in (False, True))
COMMANDS = {
    "arrays": ("commands",
               "Compare files of named arrays, such as saved features: indices, verdict, report, no "
               "network."),
    "indices": ("commands",
                "Structural indices of two matrices with the same rows, without any network."),
    "demo": ("commands",
             "Two small networks trained on the digits, one compared with itself and with the other."),
    "train": ("training_command", "Train a network of the zoo and save its weights."),
    "report": ("commands", "One HTML report of one or more comparisons."),
    "layers": ("commands",
               "The sites of a network: names, kinds, shapes, and whether they cut the network in two."),
    "compare": ("stitching_commands", "Compare two networks layer by layer: indices, direct matching, task "
                                      "loss matching, verdict, report."),
    "merge": ("stitching_commands", "The result of all shards of a comparison. The same `suture compare` "
                                    "without --shard goes on from it."),
    "stitch": ("stitching_commands", "Fit one stitching layer, save it, and say what the stitched network "
                                     "reaches on the test data."),
    "study": ("study_commands",
              "Compare many networks, as one TOML file says: run, plan, status, report, gc."),
    "reproduce": ("reproduce_command",
                  "The paper's experiments, and a page that says of each claim whether it holds."),
    "validate": ("validate_command",
                 "Test similarity measures on the networks of a study's TOML file: table, page, figure."),
}
"""The module and the help line of each command. The overview prints them without importing torch."""

# Newer versions of typer contain a copy of click; this finds the class in both cases.
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
_INTERRUPTED = 130
_TRACEBACK = "SUTURE_TRACEBACK"
"""Variable of the environment with which an unexpected error keeps its traceback."""


class Stopped(Exception):
    """A command that a signal ended: what was kept, and the signal's number."""

    def __init__(self, kept: str, number: int) -> None:
        super().__init__(kept)
        self.code = 128 + number


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


def clean(text: str) -> str:
    """Return text of a user for printing, such as a name: it can neither move the cursor nor set colours."""
    if not text.isprintable():
        from suture._base import escape_controls  # imports torch, which the overview does not need

        text = escape_controls(text)
    return escape(text)


app = make_app()
"""The application of all commands. A command registers when its module is imported."""


def main() -> None:
    """Run the command line and exit.

    The exit code is 0, 2 for bad input (one line on stderr), or 128 plus the number of the signal that ended
    the command: 130 for SIGINT, 143 for SIGTERM.
    """
    problem, code = "", 2
    arguments = sys.argv[1:] or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # Not standalone, so that errors arrive here; typer still makes an interruption an exit code.
            code = _find_app(arguments)(arguments, standalone_mode=False) or 0
    except Stopped as stopped:
        code, problem = stopped.code, str(stopped) or "interrupted; nothing was kept"
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BaseException as error:  # code of the user may also raise SystemExit, and classes of its own
        problem = _explain(error)
    if code == _INTERRUPTED and not problem:
        problem = "interrupted before any work"
    if problem:
        problems.print(f"suture: {clean(' '.join(problem.splitlines()))}", soft_wrap=True)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                  file: TextIO | None = None, line: str | None = None) -> None:
    """Print a warning on one line of stderr, with the class of those that are not suture's."""
    kind = "note" if category.__name__ == "SutureWarning" else category.__name__
    problems.print(f"{kind}: {clean(' '.join(str(message).splitlines()))}", soft_wrap=True)


def _find_app(arguments: Sequence[str]) -> typer.Typer:
    """Return the application with the command, or an overview of all commands if it is unknown."""
    if arguments[0] in COMMANDS:
        with suture.say_loading():
            importlib.import_module(f"suture.cli.{COMMANDS[arguments[0]][0]}")
        return app
    overview = make_app()
    for name, (_, line) in COMMANDS.items():
        overview.command(name, help=line)(lambda: None)
    return overview


def _explain(error: BaseException) -> str:
    """Return one line for an error. One that nobody expected is raised again if `_TRACEBACK` is set."""
    if isinstance(error, _UsageError):
        return f"{error.format_message()}; see suture --help"  # type: ignore[attr-defined]
    from suture._base import (  # imports torch, which the overview does not need
        SutureError,
        describe_error,
        is_out_of_memory,
    )

    if isinstance(error, OSError):
        return str(SutureError(f"{error}; choose another path"))
    if isinstance(error, SutureError):
        return str(error)
    if isinstance(error, RuntimeError | MemoryError) and is_out_of_memory(error):
        return "memory ran out; give fewer sites, smaller batches or another --device"
    if os.environ.get(_TRACEBACK):
        raise error
    return f"unexpected {describe_error(error)}; {_TRACEBACK}=1 shows where"
