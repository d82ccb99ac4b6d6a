"""The command line: parse, call one public function, print."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from suture._base.errors import SutureError
from suture.cli import indices_command as arrays
from suture.cli import network_commands as commands
from suture.cli import stitching_commands as comparing
from suture.cli.console import app, problems

# typer has its own copy of click from some version on; this is the class in either.
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
_INTERRUPTED = 130


def main() -> None:
    """Entry point: exit code 0, 2 for bad input (one line on stderr), 130 when interrupted."""
    problem, code = "", 2
    try:
        # Not standalone, so that errors come here; typer turns an interruption into its exit code all the same.
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
    except SutureError as e:
        problem = str(e)
    except _UsageError as e:
        problem = f"{e.format_message()}; see suture --help"  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except OSError as e:
        problem = f"{e}; choose another path"
    if code == _INTERRUPTED:
        problem = "interrupted; what was finished is kept, the same command goes on from there"
    if problem:
        problems.print(f"suture: {escape(' '.join(problem.splitlines()))}", soft_wrap=True)
    sys.exit(code)
