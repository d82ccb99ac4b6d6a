"""What a study found, in at most four sentences, the finding first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import get_measure, sort_measures
from suture.results import LEVEL, adjust_holm, shorten_name
from suture.studies.network_study.group_contrast import GroupContrast
from suture.studies.network_study.inference import FEWEST, Trend
from suture.studies.network_study.layers import Reduce

if TYPE_CHECKING:
    from suture.studies.network_study.result import Study

Ranked = tuple[tuple[str, str, float], ...]
_LABEL = "seed"
"""A column of numbers that are labels, so that no trend is looked for along it."""
_TESTS = 2
"""Sentences on groups and trends."""
_WIDEST = 48
"""Letters of a name in a sentence."""


@dataclass(frozen=True, eq=False)
class StudyFindings:
    """What a study found by one measure.

    Attributes:
        measure, reduce: as for `Study.matrix`.
        sentences: the most and the least similar pair and the mean; groups and trends; reservations.
        ranked: pairs of different networks with their values, most similar first.
        trends, contrasts: along columns of numbers, and between groups of networks.
        adjusted: p-values by column, adjusted for all of these (Holm).
        skipped: reasons why a column has neither.
    """

    measure: str
    reduce: Reduce
    sentences: tuple[str, ...]
    ranked: Ranked
    trends: tuple[Trend, ...]
    contrasts: tuple[GroupContrast, ...]
    adjusted: Mapping[str, float]
    skipped: Mapping[str, str]

    @classmethod
    def none(cls, study: Study) -> StudyFindings:
        """Return those of a study without any comparison."""
        sentence = f"None of {len(study.failures)} pairs could be compared."
        return cls("", "diagonal", (sentence,), (), (), (), {}, {})


def find_study(study: Study, measure: str | None = None, reduce: Reduce = "diagonal",
               along: str | None = None, by: str | None = None) -> StudyFindings:
    """Find what a study says by one measure.

    Args:
        measure: default CKA, else the first.
        along, by: columns of `about` for the trend and the groups. Default: all that fit
            (`choose_columns`).
    """
    measure = choose_measure(study, measure)
    numbers, groups = choose_columns(study)
    trends, contrasts, skipped = list[Trend](), list[GroupContrast](), dict[str, str]()
    for column in numbers if along is None and by is None else filter(None, [along]):
        try:
            trends.append(study.trend(measure, column, reduce))
        except SutureError as error:
            _skip(skipped, column, error, along)
    for column in groups if along is None and by is None else filter(None, [by]):
        try:
            contrasts.append(study.contrast(measure, column, reduce))
        except SutureError as error:
            _skip(skipped, column, error, by)
    tests: list[Trend | GroupContrast] = [*trends, *contrasts]
    adjusted = dict(zip([*(t.column for t in trends), *(c.by for c in contrasts)],
                        adjust_holm(np.array([t.p for t in tests])).tolist(), strict=True))
    ranked = rank_pairs(study, measure, reduce)
    tested = sorted([(adjusted[t.column], describe_trend(t, adjusted[t.column], len(tests))) for t in trends]
                  + [(adjusted[c.by], describe_contrast(c, adjusted[c.by], len(tests))) for c in contrasts],
                  key=lambda each: each[0])
    sentences = [_describe_range(study, measure, reduce, ranked), *(text for _, text in tested[:_TESTS]),
                 _describe_reservations(study, measure, reduce, tests)]
    return StudyFindings(measure, reduce, tuple(filter(None, sentences)), ranked, tuple(trends),
                         tuple(contrasts), adjusted, skipped)


def _skip(skipped: dict[str, str], column: str, error: SutureError, asked: str | None) -> None:
    if asked is not None:
        raise error
    skipped[column] = str(error)


def choose_measure(study: Study, measure: str | None = None) -> str:
    """Return the measure that is asked for, else CKA, else the first of the study."""
    names = sort_measures(study.measures)
    if measure is not None:
        if names and measure not in names:
            raise make_unknown_error("measure", measure, names)
        return measure
    expect(bool(names), "a study with measures", "none")
    return "cka" if "cka" in names else names[0]


def choose_columns(study: Study) -> tuple[list[str], list[str]]:
    """Return the columns of `about` that are numbers to look for a trend along, and those that are groups.

    Numbers vary, and seeds are labels. Groups are texts and labels of which several networks have one and
    others another.
    """
    numbers, groups = [], []
    for name in map(str, study.about.columns):
        values = [v for v in study.about[name] if v is not None and v == v]
        number = all(isinstance(v, int | float | np.number) and not isinstance(v, bool | np.bool_)
                     for v in values)
        if number and name != _LABEL:
            if len(set(values)) > 1:
                numbers.append(name)
        elif 1 < len({str(v) for v in values}) < len(values):
            groups.append(name)
    return numbers, groups


def rank_pairs(study: Study, measure: str, reduce: Reduce) -> Ranked:
    """Return pairs of different networks that were compared, with their values, most similar first."""
    common = get_measure(measure).common
    found = [(a, b, made.value) for (a, b), made in study.reduce(measure, reduce).items()
             if a != b and not np.isnan(made.value)]
    return tuple(sorted(found, key=lambda each: -common(each[2])))


def _describe_range(study: Study, measure: str, reduce: Reduce, ranked: Ranked) -> str:
    label = get_measure(measure).label
    if len(study.networks) == 1:
        return "One network was compared with itself: there is no pair of different networks."
    if not ranked:
        return f"No pair of different networks has a value of {label}."
    (a, b, high), (c, d, low) = ranked[0], ranked[-1]
    if len(ranked) == 1:
        return f"{label} of the one pair of different networks, {_join(a, b)} ({high:.3f}), has no interval."
    row = study.summary(measure, reduce).iloc[0]
    interval = (f"95 % interval over networks {row['low']:.3f} to {row['high']:.3f}" if not row["reason"]
                else row["reason"])
    return (f"Most similar by {label}: {_join(a, b)} ({high:.3f}); least: {_join(c, d)} ({low:.3f}); mean of "
            f"{len(ranked)} pairs of {row['networks']} networks {row['value']:.3f} ({interval}).")


def _join(a: str, b: str) -> str:
    return f"{shorten_name(a, _WIDEST)} and {shorten_name(b, _WIDEST)}"


def describe_trend(trend: Trend, p: float, tests: int) -> str:
    """Say in a sentence how similarity changes along a column; `p` is adjusted for so many tests."""
    larger = get_measure(trend.measure).larger_is_more_similar
    column, label = shorten_name(trend.column, _WIDEST), get_measure(trend.measure).label
    interval = "" if np.isnan(trend.low) else f", 95 % interval {trend.low:.2f} to {trend.high:.2f}"
    evidence = (f"(Spearman {trend.rho:.2f}{interval}; {_format_p(p, tests)} over permutations of "
                f"{trend.networks} networks)")
    if not p <= LEVEL:
        return f"No trend of {label} with the difference in {column} is shown {evidence}."
    how = "less" if (trend.rho < 0) == larger else "more"
    return f"Networks that differ more in {column} are {how} similar by {label} {evidence}."


def describe_contrast(found: GroupContrast, p: float, tests: int) -> str:
    """Say in a sentence if networks of one group are nearer; `p` is adjusted for so many tests."""
    label, by = get_measure(found.measure).label, shorten_name(found.by, _WIDEST)
    interval = "" if np.isnan(found.low) else f", 95 % interval {found.low:.3f} to {found.high:.3f}"
    evidence = (f"(mean {label} {found.same:.3f} within, {found.different:.3f} across, difference "
                f"{found.difference:.3f}{interval}; {_format_p(p, tests)} over permutations of "
                f"{found.networks} networks)")
    if not p <= LEVEL:
        return f"Networks of one {by} are not shown to be nearer to each other than to others {evidence}."
    nearer = (found.difference > 0) == get_measure(found.measure).larger_is_more_similar
    return (f"Networks of one {by} are {'nearer to' if nearer else 'further from'} each other than "
            f"{'to' if nearer else 'from'} others {evidence}.")


def _format_p(p: float, tests: int) -> str:
    return f"p = {p:.2g}" + (f", adjusted for {tests} tests" if tests > 1 else "")


def _describe_reservations(study: Study, measure: str, reduce: Reduce,
                           tests: Sequence[Trend | GroupContrast]) -> str:
    """Say in a sentence what the others do not rest on, or what limits them; empty if there is nothing."""
    made = study.reduce(measure, reduce)
    lost, kept = sum(one.left_out for one in made.values()), sum(one.cells for one in made.values())
    used = {name for pair, one in made.items() if pair[0] != pair[1] and not np.isnan(one.value)
            for name in pair}
    high = [test.least_p for test in tests if test.least_p > LEVEL]
    parts = [
        f"{len(study.failures)} of {len(study.failures) + len(study.pairs)} pairs failed"
        if study.failures else "",
        f"{lost} of {kept + lost} cells are missing or marked and left out" if lost else "",
        f"{len(used)} networks are too few for an interval" if 0 < len(used) < FEWEST else "",
        f"with so few networks p cannot fall below {min(high):.2g}" if high else ""]
    found = list(filter(None, parts))
    return _capitalise(f"{'; '.join(found)}.") if found else ""


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def list_names(names: Iterable[Any], most: int = 40) -> str:
    """List names of networks, at most so many, and the number of the others."""
    listed = [shorten_name(str(name), _WIDEST) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
