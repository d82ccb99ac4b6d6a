"""What one measure says of all cells of a population of networks whose layers correspond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import Bools, Floats, Ints, get_measure
from suture.results import Comparison
from suture.studies.measure_tests.measures import CellMeasure, MeasuredCell, is_symmetric, to_common
from suture.studies.network_study.compared_networks import ComparedNetworks
from suture.studies.population.pairs import PairName

Layers = Mapping[str, Sequence[str]] | str | None
_TRANSPORT = "transport"


@dataclass(frozen=True, eq=False)
class ComparedPair:
    """A pair of networks that was compared, loaded when it is asked for, and where its layers are."""

    load: Callable[[], Comparison]
    rows: Ints
    columns: Ints


@dataclass(frozen=True, eq=False)
class PopulationCells:
    """One measure of all cells of a population.

    Attributes:
        measure: its name.
        networks: names (N,).
        layers: names of the L corresponding layers, those of the first network.
        similarity: (N, N, L, L): source and target network, source and target layer, in the common form in
            which larger means more similar; nan where it is missing or marked.
        marked: (N, N, L, L), True where a value is not to be trusted.
        comparisons: by the numbers of the two networks.
    """

    measure: str
    networks: tuple[str, ...]
    layers: tuple[str, ...]
    similarity: Floats
    marked: Bools
    comparisons: Mapping[tuple[int, int], ComparedPair]

    @property
    def n(self) -> int:
        return len(self.networks)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def label(self) -> str:
        """Name of the measure in sentences."""
        return get_measure(self.measure).label

    @property
    def own(self) -> Floats:
        """Values of each network with itself, (N, L, L)."""
        k = np.arange(self.n)
        return self.similarity[k, k]

    @property
    def others(self) -> Floats:
        """All values (N, N, L, L) with nan for a network with itself."""
        found = self.similarity.copy()
        k = np.arange(self.n)
        found[k, k] = np.nan
        return found

    @property
    def corresponding(self) -> Floats:
        """Values (N, N, L) of corresponding layers, nan for a network with itself."""
        return np.diagonal(self.others, axis1=2, axis2=3)


def collect_cells(study: ComparedNetworks, measure: str, layers: Mapping[str, tuple[str, ...]],
                  own: CellMeasure | None = None) -> PopulationCells:
    """Collect one measure of all cells of a study.

    Args:
        layers: corresponding layers of each network (`find_layers`).
        own: the user's measure of cells of this name.

    Raises:
        SutureError: the study has no such measure.
    """
    names = tuple(layers)
    n, depth = len(names), len(next(iter(layers.values())))
    similarity, marked = np.full((n, n, depth, depth), np.nan), np.zeros((n, n, depth, depth), bool)
    kept, fit = dict[tuple[int, int], ComparedPair](), dict[tuple[int, int], Bools]()
    for (a, b), (i, j) in ((pair, (names.index(pair[0]), names.index(pair[1]))) for pair in study.pairs
                           if pair[0] in layers and pair[1] in layers):
        made = study.comparisons[a, b]
        rows, columns = _place(made.sources, layers[a]), _place(made.targets, layers[b])
        values, marks = _read(made, (a, b), measure, own)
        values = np.vectorize(lambda v: to_common(measure, float(v)), otypes=[float])(values)
        similarity[i, j], marked[i, j] = values[np.ix_(rows, columns)], marks[np.ix_(rows, columns)]
        kept[i, j] = ComparedPair(partial(study.comparisons.__getitem__, (a, b)), rows, columns)
        fit[i, j] = _find_symmetric(made, measure)[np.ix_(rows, columns)]
    for i, j in kept:
        if (j, i) not in kept:
            similarity[j, i] = np.where(fit[i, j], similarity[i, j], np.nan).T
            marked[j, i] = (fit[i, j] & marked[i, j]).T
    similarity[marked] = np.nan
    first = next(iter(layers.values()))
    return PopulationCells(measure, names, first, similarity, marked, kept)


def _find_symmetric(made: Comparison, measure: str) -> Bools:
    """Return which cells stand for the other direction too, where that was not compared."""
    shapes = made.meta.get("shapes", {})
    one, other = (shapes.get(side, [f"{side} {k}" for k in range(len(sites))])
                  for side, sites in (("source", made.sources), ("target", made.targets)))
    return np.array([[is_symmetric(measure, s == t) for t in other] for s in one])


def _place(sites: Sequence[str], wanted: Sequence[str]) -> Ints:
    return np.array([sites.index(site) for site in wanted], dtype=np.int64)


def _read(made: Comparison, pair: PairName, measure: str, own: CellMeasure | None) -> tuple[Floats, Bools]:
    if own is None:
        return made.matrix(measure).to_numpy(), made.marks(measure).to_numpy() != ""
    found = np.array([[own.compute(MeasuredCell(made, *pair, s, t)) for t in made.targets]
                      for s in made.sources])
    marks = [made.marks(name).to_numpy() != "" for name in own.needs]
    return found, np.any(marks, axis=0) if marks else np.zeros(found.shape, bool)


def find_layers(study: ComparedNetworks, given: Layers = None) -> dict[str, tuple[str, ...]]:
    """Return the corresponding layers of each network of a study, in order of depth.

    Args:
        given: the layers of each network, first with first; "transport:MEASURE" to match those of each
            network to those of the first; None for layers of the same names and shapes.

    Raises:
        SutureError: layers that do not correspond, an unknown network or layer, or no pair.
    """
    expect(bool(study.pairs), "a study with a pair that could be compared", "none")
    sites = dict[str, tuple[str, ...]]()
    for a, b in study.pairs:
        made = study.comparisons[a, b]
        sites[a], sites[b] = made.sources, made.targets
    sites = {name: sites[name] for name in study.networks if name in sites}
    if isinstance(given, Mapping):
        return _check_given(sites, given)
    if isinstance(given, str):
        word, _, measure = given.partition(":")
        expect(word == _TRANSPORT and bool(measure), "layers as {network: [sites]} or 'transport:MEASURE'",
               repr(given), "write layers='transport:cka'")
        return _transport(study, sites, measure)
    first = next(iter(sites))
    for (a, b), made in study.comparisons.items():
        if not made.corresponds or sites[a] != sites[first]:
            raise SutureError(f"layers of {a} and {b} do not correspond; write layers={{network: [sites]}} "
                              "or layers='transport:cka'")
    return sites


def _check_given(sites: Mapping[str, tuple[str, ...]], given: Mapping[str, Sequence[str]]
                 ) -> dict[str, tuple[str, ...]]:
    for name in given:
        if name not in sites:
            raise make_unknown_error("network in layers", name, sites)
    found = {name: tuple(given[name]) for name in sites if name in given}
    for name, layers in found.items():
        odd = next((site for site in layers if site not in sites[name]), None)
        if odd is not None:
            raise make_unknown_error(f"layer of {name}", odd, sites[name])
    counts = {len(layers) for layers in found.values()}
    expect(len(found) == len(sites), "layers of every network",
           f"none of {next((name for name in sites if name not in found), '')}")
    expect(len(counts) == 1 and 0 not in counts, "as many layers of each network", str(sorted(counts)))
    return found


def _transport(study: ComparedNetworks, sites: Mapping[str, tuple[str, ...]], measure: str
               ) -> dict[str, tuple[str, ...]]:
    """Match the layers of each network to those of the first, in order; one with two partners has none."""
    first, *others = sites
    partners: dict[str, list[str]] = {first: list(sites[first])}
    for name in others:
        forward = (first, name) in study.pairs
        plan = (study.layers(first, name, measure, order=True) if forward else
                study.layers(name, first, measure, order=True).T)
        partners[name] = [str(plan.columns[int(row.argmax())]) for row in plan.to_numpy()]
    kept = [k for k in range(len(sites[first]))
            if all(of.index(of[k]) == k for of in partners.values())]
    return {name: tuple(of[k] for k in kept) for name, of in partners.items()}


def explain_missing(cells: PopulationCells) -> str:
    """Say how many cells have no value, the first of them why, and how many are marked; empty if none."""
    held, missing, marked, why = 0, 0, 0, ""
    for i, j in cells.comparisons:
        marks = cells.marked[i, j]
        held, marked = held + marks.size, marked + int(marks.sum())
        lost = int((np.isnan(cells.similarity[i, j]) & ~marks).sum())
        missing += lost
        if lost and not why:
            why = _find_reason(cells.comparisons[i, j].load(), cells.measure)
    parts = [f"{missing} of {held} cells have no value{why and f' ({why})'}" if missing > 0 else "",
             f"{marked} of {held} cells are marked and left out" if marked else ""]
    found = ", ".join(filter(None, parts))
    return f"{cells.label}: {found}" if found else ""


def _find_reason(made: Comparison, measure: str) -> str:
    """Return the reason of the first value of a measure that is missing; "" if there is none."""
    of = made.table[made.table["measure"] == measure]
    reasons = of.loc[of["value"].isna() & (of["reason"] != ""), "reason"]
    return str(reasons.iloc[0]) if len(reasons) else ""
