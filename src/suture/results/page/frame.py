"""The frame of all pages: style, script, data of the maps, legend of the measures, citation."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suture._base import escape_controls, expect, replace_file
from suture.numbers import get_measure
from suture.results.page.data import SIGNS, CellGrid, embed, encode_page
from suture.results.page.maps import describe_gradient, describe_map, describe_scale
from suture.results.unjudged import shorten_name

if TYPE_CHECKING:
    from jinja2 import Environment

_SCRIPTS = ("pens.js", "maps.js", "plots.js", "profiles.js", "page.js")
"""Parts of the script of all pages, in order; they are one program."""


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page in one step, so that a reader sees the old or the new one whole; return its path."""
    page = Path(path)
    expect(not page.is_dir(), "a file name for the report", f"the folder {str(page)!r}",
           f"write {str(page / 'report.html')!r}")
    # A network's name may come from a file name with a lone surrogate, which UTF-8 cannot encode.
    replace_file(page, text.encode("utf-8", errors="replace"))
    return page


def fill_template(template: str | Traversable, measures: Iterable[str], values: Mapping[str, Any],
                  grids: Sequence[CellGrid] = ()) -> str:
    """Fill a template that extends ``base.html``, the frame of all pages: style, script, legend, citation.

    Args:
        template: a file of the folder ``templates``, or one of another room.
        measures: what the legend explains.
        values: names in the template, and ``title``.
        grids: maps that the script draws. In the template ``plots[i][k]`` describes map k of grid i, for the
            macro ``heat``.
    """
    from markupsafe import Markup

    environment = _make_environment()
    found = (environment.get_template(template) if isinstance(template, str)
             else environment.from_string(template.read_text(encoding="utf-8")))
    script = load_script()
    plots = [[describe_map(grid, (i, k)) for k in range(len(grid.maps))] for i, grid in enumerate(grids)]
    signs = {name for grid in grids for given in grid.maps for name in SIGNS
             if name in given.signs and given.signs[name].any()}
    return found.render(
        legend=[describe_scale(get_measure(name)) for name in measures], plots=plots, signs=signs,
        data=encode_page(grids), script=Markup(script), script_hash=hash_script(script),
        gradient=Markup(describe_gradient()), **values)


@cache
def load_script() -> str:
    """Load the script of all pages."""
    folder = resources.files("suture.results.page").joinpath("templates")
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return "\n(() => {\n\"use strict\";\n" + "\n".join(parts) + "})();\n"


def hash_script(script: str) -> str:
    """Return the name by which a page's security policy allows this script and no other one."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


@cache  # because it keeps the templates that it has compiled
def _make_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Names of sites and networks come from users, so everything is escaped.
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       finalize=_escape_lines, loader=PackageLoader("suture.results.page"))
    made.filters["short"] = lambda name, most=20: shorten_name(str(name), most)
    return made


def _escape_lines(value: Any) -> Any:
    """Escape signs in a text that could reverse or hide others; line breaks within a tooltip stay."""
    if type(value) is not str or value.isprintable():  # markup of the page itself is of another class
        return value
    return "\n".join(map(escape_controls, value.split("\n")))


def embed_table(data: bytes) -> str:
    """Return a table of CSV as an address within the page, compressed; the script inflates it again."""
    return embed("application/gzip", gzip.compress(data, 6, mtime=0))
