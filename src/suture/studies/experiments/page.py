"""The page of a scale: claims first, then each experiment with its figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from suture._base import escape_controls, replace_file
from suture.studies.experiments.claims import Outcome, list_headlines, list_words
from suture.studies.experiments.record import Record
from suture.studies.experiments.registry import EXPERIMENTS
from suture.studies.experiments.scale_files import SCALES

if TYPE_CHECKING:
    import pandas as pd

PAGE = "page.md"
FIGURES = "figures"
TABLES = "tables"
_SIZES = {"two-column": "", "column": "-column"}
"""Sizes of each figure, and what its file's name ends with."""


def write_page(path: Path, scale: str, records: Mapping[str, Record],
               outcomes: Mapping[str, Sequence[Outcome]]) -> Path:
    """Write the page of a scale, and beside it its figures (PNG and PDF) and its tables (CSV and LaTeX)."""
    figures = {name: _save_figures(path.parent / FIGURES, record) for name, record in records.items()}
    for name, record in records.items():
        _save_tables(path.parent / TABLES, name, record)
    replace_file(path, render_page(scale, records, outcomes, figures).encode())
    return path


def render_page(scale: str, records: Mapping[str, Record], outcomes: Mapping[str, Sequence[Outcome]],
                figures: Mapping[str, Sequence[str]]) -> str:
    """Render the page as Markdown.

    Args:
        figures: names of each experiment's figures, in the folder ``figures``.
    """
    return "\n".join([*_open(scale, records), *_list_headlines(outcomes), *_list_claims(outcomes),
                      *(line for name, record in records.items()
                        for line in _describe(name, record, figures.get(name, ())))]).rstrip() + "\n"


def _open(scale: str, records: Mapping[str, Record]) -> Iterator[str]:
    yield f"# The paper's claims at scale {scale}: {SCALES[scale]}"
    yield ""
    machines = list_words(list(dict.fromkeys(str(r.about.get("machine", "?")) for r in records.values())))
    yield ('What our numbers say of the claims of Balogh and Jelasity, "How not to Stitch Representations to '
           f'Measure Similarity" (AAAI 2025). Made by `suture reproduce {" ".join(records)} --scale {scale}` '
           f"from its records alone. Machine: {machines}.")
    yield ""


def _explain_rules() -> Iterator[str]:
    yield ("A claim holds or does not hold where the whole 95 % interval over networks lies on one side. Of "
           "tests within a network and of shares of cells it is enough that at least three networks all "
           "agree. Else the claim cannot be decided (open). TLM cells whose training has not converged "
           "decide nothing: where they are most, the claim is open.")
    yield ""


def _list_headlines(outcomes: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    found = list_headlines(outcomes)
    if found:
        yield "## The three headline claims"
        yield ""
        yield "| claim | | in short |"
        yield "|---|---|---|"
        for headline in found:
            yield _write_row(headline.claim, f"**{headline.word}**", headline.numbers)
        yield ""
    yield from _explain_rules()
    for headline in found:
        yield f"### {headline.claim}"
        yield ""
        yield from _list_outcomes(headline.parts)


def _list_claims(outcomes: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    others = [(name, o) for name, of in outcomes.items() for o in of if not o.headline]
    if others:
        yield "## Other claims"
        yield ""
        yield from _list_outcomes(others)


def _list_outcomes(found: Sequence[tuple[str, Outcome]]) -> Iterator[str]:
    yield "| | claim | | our number |"
    yield "|---|---|---|---|"
    for name, outcome in found:
        yield _write_row(name, outcome.claim, f"**{outcome.word}**", _tell(outcome))
    yield ""


def _tell(outcome: Outcome) -> str:
    reason = outcome.reason
    return outcome.measured + (f". {reason[:1].upper()}{reason[1:]}" if reason else "")


def _write_row(*cells: str) -> str:
    return "| " + " | ".join(_escape(cell).replace("|", "\\|") for cell in cells) + " |"


def _escape(text: object) -> str:
    """Escape a text from outside: Markdown passes HTML on."""
    return escape(escape_controls(str(text)), quote=False)


def _describe(name: str, record: Record, figures: Sequence[str]) -> Iterator[str]:
    experiment = EXPERIMENTS[name]
    yield f"## {name}: {experiment.title}"
    yield ""
    yield experiment.question
    yield ""
    yield from _tell_how(record)
    for sentence in experiment.describe(record):
        yield _escape(sentence)
        yield ""
    for figure in figures:
        yield f"![{name}, {figure}]({FIGURES}/{name}-{figure}.png)"
        yield ""
        stem = f"{FIGURES}/{name}-{figure}"
        yield f"PDF: [two columns]({stem}.pdf), [one column]({stem}-column.pdf)"
        yield ""
    for title, table in experiment.tabulate(record).items():
        if not table.empty:
            stem = f"{TABLES}/{_name_table(name, title)}"
            yield f"**{title}** ([CSV]({stem}.csv), [LaTeX]({stem}.tex))"
            yield ""
            yield from _write_table(table)
            yield ""


def _tell_how(record: Record) -> Iterator[str]:
    for part, about in (record.about.get("parts") or {}).items():
        facts = [f"{len(about['networks'])} networks, {about['pairs']} pairs" if "pairs" in about else "",
                 f"{about['n_fit']} examples for direct matching" if about.get("n_fit") else "",
                 f"{about['n_test']} test examples" if about.get("n_test") else "",
                 *(f"detectors' {k}: {v}" for k, v in (about.get("detectors") or {}).items()
                   if k != "positive")]
        yield (f"{part + ': ' if part else ''}{', '.join(filter(None, facts))}.")
        yield ""
        for pair, why in (about.get("failures") or {}).items():
            yield f"Failed: {_escape(pair)}: {_escape(why)}"
            yield ""
    networks = record.read("networks")
    if not networks.empty:
        shown = networks.drop_duplicates("network")
        yield "Test accuracies: " + ", ".join(
            f"{_escape(name)} {accuracy:.3f}" for name, accuracy in
            zip(shown["network"], shown["accuracy"], strict=True)) + "."
        yield ""


def _write_table(table: pd.DataFrame) -> Iterator[str]:
    yield _write_row(*map(str, table.columns))
    yield "|---" * len(table.columns) + "|"
    for row in table.itertuples(index=False):
        yield _write_row(*("–" if value != value else str(value) for value in row))


def _name_table(name: str, title: str) -> str:
    return f"{name}-{'-'.join(title.lower().split()[:5])}"


def _save_figures(folder: Path, record: Record) -> list[str]:
    from suture.results import save_drawn, style

    drawn = EXPERIMENTS[record.experiment].draw(record)
    for kind, suffix in _SIZES.items():
        with style(kind):
            save_drawn({f"{record.experiment}-{name}{suffix}": make for name, make in drawn.items()}, folder)
    return list(drawn)


def _save_tables(folder: Path, name: str, record: Record) -> None:
    from suture.results import write_frame

    for title, table in EXPERIMENTS[name].tabulate(record).items():
        stem = folder / _name_table(name, title)
        replace_file(stem.with_suffix(".csv"), table.to_csv(index=False, lineterminator="\n").encode())
        if not table.empty:
            replace_file(stem.with_suffix(".tex"),
                         write_frame(table.set_index(table.columns[0]), 3, "", "").encode())

