"""Progress as bars in the output of a notebook's cell. Only IPython is needed, which every kernel has."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from suture._base.printing import escape_controls
from suture._base.reporting.stage_rows import StageRow, StageRows

_EVERY = 0.25
"""Seconds between two drawings, each of which is a message to the notebook."""
_CELL = 'style="text-align:left;padding:0 .6em 0 0;border:0"'


def has_notebook() -> bool:
    """Return True in the kernel of a notebook, such as Jupyter, Colab or an editor's."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return hasattr(shell, "kernel")


class NotebookBars:
    """Draws a bar for each of the last stages in a notebook, in the colours of its theme; at the end none."""

    def __init__(self) -> None:
        self._rows, self._drawn, self._handle = StageRows(), 0.0, None

    def start(self) -> None:
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self._handle = display(self._render(), raw=True, display_id=True)

    def update(self, stage: str, done: int, total: int | None) -> None:
        if self._rows.update(stage, done, total) or time.monotonic() - self._drawn >= _EVERY:
            self._draw(self._render())

    def stop(self) -> None:
        self._draw({"text/plain": "", "text/html": ""})

    def _draw(self, made: dict[str, str]) -> None:
        self._drawn = time.monotonic()
        handle: Any = self._handle
        if handle is not None:
            handle.update(made, raw=True)

    def _render(self) -> dict[str, str]:
        rows = self._rows.rows
        html = "".join(f"<tr>{_render_row(row)}</tr>" for row in rows)
        return {"text/plain": "\n".join(f"{row.stage} {row.count}".rstrip() for row in rows),
                "text/html": f"<table style='border:0'>{html}</table>"}


def _render_row(row: StageRow) -> str:
    bar = ("<progress></progress>" if row.total is None
           else f'<progress value="{int(row.done)}" max="{max(1, int(row.total))}"></progress>')
    texts = escape(escape_controls(row.stage)), bar, escape(row.count), escape(row.left)
    return "".join(f"<td {_CELL}>{text}</td>" for text in texts)
