"""The paper's pair: how well stitched networks work, and how far their representations lie from native."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import METHOD_NAMES, get_measure
from suture.results.drawing.grids import draw_matrix_grid
from suture.results.drawing.maps import Heat, name_scale
from suture.results.heatmaps import make_printable
from suture.results.measured import Measured
from suture.results.standing import find_standing
from suture.results.verdicts import find_artefacts

_FIRST = ("natural_distance", "ood_", "auroc_", "informational_residual", "frechet", "residual")
"""Beginnings of the names of distances, those first that a pair has by default."""
_ORDER = ("tlm", "dm")
"""Methods as the paper's figures have them, from above."""
_WIDE = 1.5
"""Ratio of a figure's width to its height in the settings from which all maps stand in one row."""


def draw_pair(measured: Measured, distance: str | None = None, width: float | None = None,
              annotate: bool | None = None, title: str | None = None) -> Figure:
    """Draw the maps of both methods; `Drawn.plot_pair` describes the arguments."""
    criteria, known = find_standing(measured).criteria, list_distances(measured)
    expect(bool(criteria), "stitching methods in the comparison", "none",
           'compare with methods=("dm", "tlm")')
    if not known:
        raise SutureError("expected distances of the stitched representations, got a comparison without "
                          "them; compare with ood")
    chosen = next(iter(known)) if distance is None else distance.removeprefix("dm.").removeprefix("tlm.")
    if chosen not in known:
        raise make_unknown_error("distance", str(distance), known)
    hatched, rows = find_artefacts(measured), []
    for method in (m for m in _ORDER if m in criteria):
        names = [f"{method}.{criteria[method].quantity}", f"{method}.{chosen}"]
        rows.append([Heat.of(measured, name, hatched) if name in measured.measures else None
                     for name in names])
    shown = [m.upper() for m in _ORDER if m in criteria]
    given = mpl.rcParams["figure.figsize"]
    if len(rows) > 1 and (width or given[0]) >= _WIDE * given[1]:
        heats = [heat for row in rows for heat in row if heat is not None]
        return draw_matrix_grid([heats], width=width, annotate=annotate, title=title,
                                columns=[make_printable(heat.kind.label) for heat in heats])
    heads = [next(name_scale(row[k]) for row in rows if row[k] is not None)  # type: ignore[arg-type]
             for k in range(2)]
    return draw_matrix_grid(rows, width=width, rows=shown, annotate=annotate, title=title,
                            columns=[head[:1].upper() + head[1:] for head in heads])


def list_distances(measured: Measured) -> list[str]:
    """List the distances of stitched representations that a comparison has, without their methods."""
    found = dict.fromkeys(name.partition(".")[2] for name in measured.measures
                          if name.partition(".")[0] in METHOD_NAMES)
    near = [name for name in found if name.startswith(_FIRST)
            and not any(get_measure(f"{m}.{name}").larger_is_more_similar for m in METHOD_NAMES)]
    return sorted(near, key=lambda name: next(k for k, first in enumerate(_FIRST) if name.startswith(first)))
