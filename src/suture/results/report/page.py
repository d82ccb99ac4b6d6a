"""A self-contained HTML page for one or several comparisons, without scripts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from suture._base import expect, replace_file
from suture.numbers import get_measure, sort_measures
from suture.results.measured import Measured
from suture.results.report.page_heatmaps import describe_scale
from suture.results.report.page_sections import describe_comparison

_CITATION = """@inproceedings{balogh2025stitch,
  author    = {Balogh, András and Jelasity, Márk},
  title     = {How not to Stitch Representations to Measure Similarity:
               Task Loss Matching versus Direct Matching},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025},
  note      = {arXiv:2412.11299}
}"""


def render_page(comparisons: Sequence[Measured]) -> str:
    """Render the page of at least one comparison as text, in the given order."""
    from jinja2 import Environment, StrictUndefined

    expect(len(comparisons) > 0, "at least one comparison to report", "none")
    # Names of sites and networks come from users, so everything is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    text = resources.files("suture.results.report").joinpath("template.html").read_text(encoding="utf-8")
    present = sort_measures(name for c in comparisons for name in c.measures)
    pairs = [f"{c.source} → {c.target}" for c in comparisons]
    return environment.from_string(text).render(
        title=f"How similar? {pairs[0]}" + (f" and {len(pairs) - 1} more" if pairs[1:] else ""),
        comparisons=[describe_comparison(c, i) for i, c in enumerate(comparisons)],
        legend=[describe_scale(get_measure(name)) for name in present], citation=_CITATION)


def write_page(comparisons: Sequence[Measured], path: str | os.PathLike[str]) -> Path:
    """Write the page in one step, so that a reader sees the old or the new one whole; return its path."""
    page = Path(path)
    expect(not page.is_dir(), "a file name for the report", f"the folder {str(page)!r}",
           f"write {str(page / 'report.html')!r}")
    # A network's name may come from a file name with a lone surrogate, which UTF-8 cannot encode.
    replace_file(page, render_page(comparisons).encode("utf-8", errors="replace"))
    return page
