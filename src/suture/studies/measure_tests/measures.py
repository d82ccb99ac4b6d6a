"""The one way to name a measure: built in, of a stitched network, or the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from suture._base import SutureError, checked, expect, run_foreign, show_value
from suture.indices import INDICES, Index, Request, chosen
from suture.numbers import (
    METHOD_NAMES,
    Measure,
    get_base_name,
    get_measure,
    make_measure,
    register_measure,
)
from suture.results import Comparison


@dataclass(frozen=True)
class MeasuredCell:
    """One cell of a study, as a user's measure of cells sees it.

    Attributes:
        comparison: of the two networks, with all that it has.
        source, target: names of the networks.
        source_site, target_site: names of the sites.
    """

    comparison: Comparison
    source: str
    target: str
    source_site: str
    target_site: str

    def value(self, measure: str) -> float:
        """Return what a measure of the comparison says of the cell; nan if it is missing."""
        place = (self.comparison.sources.index(self.source_site),
                 self.comparison.targets.index(self.target_site))
        return float(self.comparison.matrix(measure).to_numpy()[place])


@dataclass(frozen=True)
class CellMeasure:
    """A user's function of one cell as a measure; `needs` are measures that it reads."""

    function: Callable[[MeasuredCell], float]
    measure: Measure
    needs: tuple[str, ...] = ()

    def compute(self, cell: MeasuredCell) -> float:
        with run_foreign(f"the measure {self.measure.name!r}"):
            found = self.function(cell)
        try:
            return float(found)
        except (TypeError, ValueError):
            raise SutureError(f"expected a number from the measure {self.measure.name!r}, got "
                              f"{show_value(found)}; return nan where there is none") from None


@checked
def of_cell(function: Callable[[MeasuredCell], Any], name: str | None = None, *,
            needs: tuple[str, ...] = (), larger_is_more_similar: bool = True, about: str = ""
            ) -> CellMeasure:
    """Make a measure of a user's function of one cell, for `suture.validate`.

    >>> def careful(cell):
    ...     return cell.value("dm.relative_accuracy") * (1 - cell.value("dm.residual"))
    >>> careful = suture.studies.of_cell(careful, needs=("dm.relative_accuracy", "dm.residual"))

    Args:
        function: of a `MeasuredCell`; it returns a number, nan where there is none.
        name: in tables. Default: the function's name.
        needs: measures that it reads, so that they are computed.
        larger_is_more_similar: False for a distance.
        about: one sentence for the page.

    Raises:
        SutureError: a name that another measure has.
    """
    called = str(name or getattr(function, "__name__", ""))
    expect(called.isidentifier() and called not in INDICES, "a name of letters that no index has",
           repr(called), "write name='my_measure'")
    return CellMeasure(function, register_measure(make_measure(
        called, called.replace("_", " "), about or f"A function of a cell, {called}.",
        larger=larger_is_more_similar, own=True)), tuple(needs))


@dataclass(frozen=True)
class ChosenMeasures:
    """Measures to test, and what a comparison must compute for them.

    Attributes:
        names: of the measures, each once.
        indices: for `suture.compare`.
        methods: likewise.
        cells: the user's measures of cells, by name.
    """

    names: tuple[str, ...]
    indices: tuple[Request, ...]
    methods: tuple[str, ...]
    cells: Mapping[str, CellMeasure]

    @property
    def symmetric(self) -> bool:
        """True if none depends on the direction of a pair."""
        return not self.methods and all(is_symmetric(r.name) for r in self.indices)


def is_symmetric(name: str, alike: bool = False) -> bool:
    """Return True if a measure is known to say the same in both directions.

    Args:
        alike: the two representations have one shape. If not, an index of stitched positions has a direction
            whatever its formula, because the source is resized to the target.
    """
    entry = INDICES.get(get_base_name(name))
    return bool(entry is not None and entry.symmetric and (alike or "@" in name))


Given = str | Index | Request | CellMeasure | Callable[..., float]


def choose_measures(given: Iterable[Given] | Given) -> ChosenMeasures:
    """Read the measures that a user names; a text may hold several, separated by commas.

    Raises:
        SutureError: an unknown measure, one that no test can judge, or none.
    """
    one = isinstance(given, str | Index | Request | CellMeasure) or callable(given)
    listed: list[Any] = [given] if one else list(given)  # type: ignore[arg-type]
    if isinstance(given, str):
        listed = [name.strip() for name in given.split(",") if name.strip()]
    names, indices, methods, cells = list[str](), list[Request](), list[str](), dict[str, CellMeasure]()
    for item in listed:
        if isinstance(item, CellMeasure):
            cells[item.measure.name] = item
            names.append(item.measure.name)
            needed = choose_measures(item.needs) if item.needs else None
            indices += needed.indices if needed else ()
            methods += needed.methods if needed else ()
        elif isinstance(item, str) and item.partition(".")[0] in METHOD_NAMES:
            entry = get_measure(item)
            expect(entry.judged, "a measure that says how similar two layers are", repr(item),
                   "write dm.relative_accuracy or dm.residual")
            names.append(item)
            methods.append(item.partition(".")[0])
        else:
            found = chosen([item])
            names += [request.name for request in found]
            indices += found
    expect(bool(names), "at least one measure to test", "none", "write measures=['cka']")
    return ChosenMeasures(tuple(dict.fromkeys(names)), tuple(chosen(indices) if indices else ()),
                          tuple(dict.fromkeys(methods)), cells)


def to_common(name: str, value: float) -> float:
    """Return a value in the common form of its measure, in which larger means more similar."""
    return value if math.isnan(value) else get_measure(name).common(value)
