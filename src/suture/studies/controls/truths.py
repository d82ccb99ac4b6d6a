"""The truth table: which verdict is right for each control. It was written before the measured runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from suture.results import ARTEFACT, DISSIMILAR, LABELS_ONLY, NOT_SHOWN, SIMILAR, UNPROVEN

if TYPE_CHECKING:
    import pandas as pd

_SAME = frozenset({SIMILAR})
_NOTHING = frozenset({DISSIMILAR})
_NOT_SIMILAR = frozenset({ARTEFACT, LABELS_ONLY, DISSIMILAR})
_SHARES = frozenset({SIMILAR, ARTEFACT})
_UNKNOWN: frozenset[str] = frozenset()
RIGHT, WRONG, OPEN, UNDEFINED = "right", "wrong", "unproven", "no truth defined"


@dataclass(frozen=True)
class Truth:
    """The right verdicts of one control at one strength.

    Attributes:
        control: name of the control.
        strength: of an alteration; nan for controls without one, and for all others of its name.
        right: verdicts that are right; empty where none is defined.
        why: reason, in one clause.
        maps_only: True for a truth that holds for maps before the last site alone; elsewhere none is defined.
    """

    control: str
    strength: float
    right: frozenset[str]
    why: str
    maps_only: bool = False

    def grade(self, verdict: str) -> str:
        """Return "right", "wrong", "unproven" or "no truth defined" for a verdict."""
        if not self.right:
            return UNDEFINED
        if verdict in self.right:
            return RIGHT
        return OPEN if verdict in (UNPROVEN, NOT_SHOWN) else WRONG


def _list_by_strength(control: str, known: Mapping[float, tuple[frozenset[str], str]], otherwise: str, *,
                      maps_only: bool = False) -> Iterator[Truth]:
    """Return the truths of an alteration at the strengths where one is known, and that none is at others."""
    for strength, (right, why) in known.items():
        yield Truth(control, strength, right, why, maps_only)
    yield Truth(control, _ANY, _UNKNOWN, otherwise)


_ANY = math.nan
TRUTHS = (
    Truth("identity", _ANY, _SAME, "the representations are the native ones"),
    Truth("rotated copy", _ANY, _SAME, "direct matching can undo an orthogonal map exactly"),
    Truth("natural shift", 0.5, _SAME, "natural inputs, at half the severity that breaks the network"),
    Truth("two seeds", _ANY, _SAME, "one architecture, one task, one depth, matched without the labels"),
    Truth("class noise", _ANY, _NOT_SIMILAR, "the source holds the class and nothing else"),
    Truth("class noise of another", _ANY, _NOT_SIMILAR, "the same, of a class that another network predicts"),
    Truth("pure noise", _ANY, _NOTHING, "the source holds nothing of the example"),
    Truth("permuted examples", _ANY, _NOTHING, "the source sees other examples"),
    Truth("random weights", _ANY, _UNKNOWN, "a random layer may hold all information of the image"),
    Truth("random labels", _ANY, _UNKNOWN, "a front that has learned by heart holds what it learned from"),
    *_list_by_strength("collapsed", {
        1.0: (_NOT_SIMILAR, "the class means hold the class and nothing else"),
        0.25: (_SHARES, "what lies within classes is there, at three quarters of its size"),
    }, otherwise="how small is still the same, nobody knows"),
    *_list_by_strength("swapped", {
        1.0: (_NOT_SIMILAR, "each representation is that of another example of the class"),
        0.25: (_SAME, "three quarters of the examples have their own representation"),
    }, otherwise="half of the examples have their own"),
    *_list_by_strength("positions shuffled", {
        1.0: (_NOT_SIMILAR, "what was where is lost"),
    }, otherwise="half of the positions stay", maps_only=True),
    *_list_by_strength("shrunken", {
        0.9: (_SAME, "nothing is lost, and little is changed"),
    }, otherwise="nothing is lost, but natural inputs may not reach there"),
    *_list_by_strength("rotated", {
        5.0: (_SAME, "hardly changed"), 90.0: (_NOT_SIMILAR, "no channel keeps what it had"),
    }, otherwise="between"),
    *_list_by_strength("noise added", {
        0.1: (_SAME, "one hundredth of the variance is noise"),
        3.0: (_NOT_SIMILAR, "nine tenths of the variance are noise"),
    }, otherwise="between"),
)
"""All truths. The first that suits a control and its strength counts."""


def find_truth(control: str, strength: float = math.nan, kind: str = "map", last: bool = False) -> Truth:
    """Return the truth of a control at a site.

    Args:
        strength: of an alteration; nan for controls without one.
        kind: of the representation: "map", "tokens" or "vector".
        last: True at the last site of the network, after which positions may be averaged.
    """
    found = next(t for t in TRUTHS if t.control == control
                 and (math.isnan(t.strength) or t.strength == strength))
    outside = found.maps_only and (kind != "map" or last)
    return Truth(control, strength, _UNKNOWN, "the rest may not see positions") if outside else found


def tabulate_truths() -> pd.DataFrame:
    """Return the truth table, a row for each control and strength."""
    import pandas as pd

    return pd.DataFrame([{"control": t.control, "strength": t.strength, "right": ", ".join(sorted(t.right)),
                          "why": t.why, "maps_only": t.maps_only} for t in TRUTHS])
