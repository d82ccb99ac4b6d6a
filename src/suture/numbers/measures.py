"""The table of measures that every table and plot reads: name, range and direction of each."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from suture._base import make_unknown_error

ALIGNMENTS = ("pool", "within", "flatten", "paper")
"""Alignments after ``@`` in an index's name. Without one it uses the matrices of the stitching layer."""
COMMON_FORMS: Mapping[str, tuple[str, Callable[[float], float]]] = {
    "same": ("value", lambda v: v),
    "negative": ("-value", lambda v: -v),
    "half": ("1 - value / 2", lambda v: 1 - v / 2),
    "cosine": ("cos(value)", math.cos),
    "inverse": ("1 / (1 + value)", lambda v: 1 / (1 + v)),
}
"""Common forms, in which larger means more similar: the formula, and the function."""
METRIC_FORMS: Mapping[str, Callable[[float], float]] = {
    "same": lambda v: v,
    "root": lambda v: math.sqrt(max(0.0, v)),
    "angle": lambda v: math.acos(min(1.0, max(-1.0, v))),
}
"""Functions that make values of an index a metric between representations (Williams et al. 2021)."""


@dataclass(frozen=True)
class Measure:
    """A similarity measure of a cell.

    Attributes:
        name, label: key in tables, such as ``"cka"`` or ``"dm.relative_accuracy"``, and name in figures.
        low, high: fixed colour limits; also the range of the values, unless `span` gives a wider one.
        functional: it needs a stitched network, not only two matrices.
        about: one sentence: definition and source.
        judged: the sanity check tests that every layer is most similar to itself.
        form: key in `COMMON_FORMS`; "" for the value itself, or for its negative where smaller is more
            similar.
        own: it is a user's function.
        metric: key in `METRIC_FORMS`; "" if none is known.
    """

    name: str
    label: str
    low: float
    high: float
    larger_is_more_similar: bool
    functional: bool
    about: str
    judged: bool = True
    form: str = ""
    span: tuple[float, float] | None = None
    own: bool = False
    metric: str = ""

    @property
    def direction(self) -> str:
        """``"larger"`` or ``"smaller"``: values that mean more similar."""
        return "larger" if self.larger_is_more_similar else "smaller"

    @property
    def native(self) -> tuple[float, float]:
        """Range of the values."""
        return self.span or (self.low, self.high)

    @property
    def common_form(self) -> tuple[str, Callable[[float], float]]:
        """Formula and function of the common form."""
        return COMMON_FORMS[self.form or ("same" if self.larger_is_more_similar else "negative")]

    def common(self, value: float) -> float:
        """Convert a value to the common form, in which larger means more similar."""
        return self.common_form[1](value)

    def variant(self, tail: str) -> Measure:
        """Return the same measure with another argument (``":0.9"``) or of other matrices (``"@pool"``)."""
        of, _, view = tail.partition("@")
        words = ", ".join(w for w in (of.removeprefix(":"), view) if w)
        return replace(self, name=self.name + tail, label=f"{self.label} [{words}]")


def make_measure(name: str, label: str, about: str, *, low: float = 0.0, high: float = 1.0,
                 larger: bool = True, functional: bool = False, form: str = "", judged: bool = True,
                 span: tuple[float, float] | None = None, own: bool = False, metric: str = "") -> Measure:
    """Make a measure; without options, that of a structural index between 0 and 1."""
    return Measure(name, label, low, high, larger, functional, about, judged, form, span, own, metric)


# Colours of divergences end at ln 10: a uniform guess over ten classes against a sure prediction. The limit
# is the same for every number of classes, so that maps of different data can be compared.
_NATS = round(math.log(10), 3)
_POSITIVE, _ANY, _UP_TO_ONE = (0.0, math.inf), (-math.inf, math.inf), (-math.inf, 1.0)
METHOD_NAMES = {"dm": "direct matching", "tlm": "task loss matching"}
"""The methods that fit a stitching layer, by the prefix of their measures."""
_WORDS = {
    "tokens": "For language models over the unpadded tokens; their interval is a bootstrap over whole texts.",
    "frechet": "Representations S stitched by {method} against the target's own T:",
    "scores": ("Scores are those of the detector {detector} on representations stitched by {method} and "
               "native ones of the same test examples; the native ones are the positive class, larger scores "
               "more in-distribution."),
}
"""Words that several measures share."""
_OF_METHOD = (
    make_measure("accuracy", "accuracy", functional=True, about="""
        Test accuracy of the network stitched by {method}; Wilson interval. {tokens}"""),
    make_measure("relative_accuracy", "relative accuracy", functional=True, span=_POSITIVE, about="""
        Test accuracy of the network stitched by {method} over that of the target network; bootstrap over
        examples, paired. {tokens}"""),
    make_measure("agreement", "agreement", functional=True, about="""
        Share of test examples on which the network stitched by {method} predicts the class that the target
        network predicts; Wilson interval. {tokens}"""),
    make_measure("kl", "KL", high=_NATS, larger=False, functional=True, span=_POSITIVE, about="""
        Mean over test examples of KL(target network's predictions || those of the network stitched by
        {method}), in nats, from the softmax of the logits; bootstrap over examples. {tokens} No upper
        limit."""),
    make_measure("ce_gap", "cross-entropy gap", high=_NATS, larger=False, functional=True, span=_ANY,
                 about="""
        Test cross-entropy of the network stitched by {method} minus that of the target network, in nats;
        below 0 where the stitched one is better; bootstrap over examples, paired. {tokens} No upper
        limit."""),
    make_measure("relative_perplexity", "relative perplexity", low=1.0, high=10.0, larger=False,
                 functional=True, span=_POSITIVE, about="""
        Perplexity per token of the network stitched by {method} over that of the target network, e to the
        power of the cross-entropy gap: 1 where the two are equally good, below 1 where the stitched one is
        better; bootstrap over texts, paired. No upper limit."""),
    make_measure("residual", "residual", larger=False, span=_POSITIVE, about="""
        |S - T|² / |T|² on test data, ratio of sums: S stitched by {method}, T the target's own
        representation; bootstrap over examples, paired."""),
    make_measure("residual_batches", "residual (batches)", larger=False, span=_POSITIVE, about="""
        |S - T|² / |T|², S stitched by {method}: mean over the test batches, the last one may be smaller (the
        paper's structural DM; Balogh and Jelasity 2025). n counts batches; Student's t interval over them,
        none for a single batch."""),
    make_measure("r2", "R² (test)", span=_UP_TO_ONE, about="""
        1 - sum |S - T|² / sum |T - mean T|² on test data, S stitched by {method}, the mean per channel over
        all rows; below 0 where S is worse than that mean. Bootstrap over examples, paired, with the mean held
        fixed."""),
    make_measure("output_r2", "R² of the output", functional=True, span=_UP_TO_ONE, about="""
        1 - sum |o - t|² / sum |t - mean t|² on test data: outputs o of the network stitched by {method}, t of
        the target network, the mean per channel over all rows; below 0 where o is worse than that mean. For
        outputs that are no logits. Bootstrap over examples, paired, with the mean held fixed."""),
    make_measure("output_error", "error of the output", larger=False, functional=True, span=_POSITIVE,
                 about="""
        sqrt(sum |o - t|² / sum |t|²) on test data, the relative error of the outputs o of the network
        stitched by {method}, t of the target network. For outputs that are no logits. Bootstrap over
        examples, paired."""),
    make_measure("natural_distance", "natural distance", high=2.0, larger=False, judged=False, span=_POSITIVE,
                 about="""
        Squared Fréchet distance of representations stitched by {method} from the target's own ones, over the
        outer radius of the natural range at this site: above 1 where label-preserving shifts of the input
        move no representation so far while the network still works. Paired test examples; interval by the
        delta method over examples. No upper limit."""),
    make_measure("informational_residual", "informational residual", larger=False, judged=False, about="""
        1 - max(0, r)², r the correlation of S and T on test data after the class means are taken out: S
        stitched by {method}, T the target's own representation, class means from the fitting data. 1 where S
        shares nothing but the class; bootstrap over examples, paired."""),
    make_measure("strict_residual", "strict residual", larger=False, judged=False, span=_POSITIVE, about="""
        sum |S - T|² / sum |T - T_c|² on test data: S stitched by {method}, T the target's own representation,
        T_c its class mean on the fitting data. 1 where S is no better than the class mean; bootstrap over
        examples, paired. No upper limit."""),
    make_measure("frechet", "Fréchet", larger=False, judged=False, span=_POSITIVE, about="""
        {frechet} squared Fréchet distance of Gaussians with the moments of S and of T, on the data it was
        fitted to, in units of T's total variance: 0 where the two agree; the sum of the three parts beside it
        (Dowson and Landau 1982; Heusel et al. 2017). No upper limit."""),
    make_measure("frechet_shift", "Fréchet shift", larger=False, judged=False, span=_POSITIVE, about="""
        {frechet} part of the Fréchet distance that the means make: |mean S - mean T|² over T's total
        variance. No upper limit."""),
    make_measure("frechet_shrinkage", "Fréchet shrinkage", larger=False, judged=False, span=_POSITIVE,
                 about="""
        {frechet} part of the Fréchet distance that the spectra make: sum over the ordered eigenvalues of
        (sqrt(s) - sqrt(t))², over T's total variance. No upper limit."""),
    make_measure("frechet_rotation", "Fréchet rotation", larger=False, judged=False, span=_POSITIVE, about="""
        {frechet} part of the Fréchet distance that is left when the spectra are equal: other principal
        directions. No upper limit."""),
)
"""Measures of each cell by each method, named without it."""


def _name_fully(plain: Measure, method: str, detector: str = "") -> Measure:
    """Return a measure of the tables with the method that it is of, and with the detector."""
    names = {"method": METHOD_NAMES[method], "detector": detector}
    about = plain.about.format(**{word: text.format(**names) for word, text in _WORDS.items()}, **names)
    ending = f" ({detector.replace('_', ' ')})" if detector else ""
    return replace(plain, name="_".join(filter(None, (f"{method}.{plain.name}", detector))),
                   label=f"{method.upper()} {plain.label}{ending}", about=" ".join(about.split()))


_OF_DETECTOR = {m.name: m for m in (
    make_measure("ood", "out of distribution", low=0.5, span=(0.0, 1.0), larger=False, judged=False,
                 about="""
        AUROC of typicality, the mean over test examples of |2 F(score) - 1| with F the distribution of the
        native scores: 0.5 where stitched and native scores cannot be told apart, 1 where all stitched ones
        lie outside, on either side. {scores}"""),
    make_measure("auroc", "AUROC", larger=False, judged=False, about="""
        Probability that a native score exceeds a stitched one (ties half): 0.5 where they cannot be told
        apart, 1 where all stitched ones are lower, below 0.5 where they look more in-distribution than native
        ones, which is a difference too (Balogh and Jelasity 2025). {scores}"""),
    make_measure("ap", "average precision", low=0.5, span=(0.0, 1.0), larger=False, judged=False, about="""
        Average precision of finding the native ones by a large score: 0.5 where they cannot be told apart.
        {scores}"""),
    make_measure("fpr95", "FPR at 95 % recall", judged=False, about="""
        Share of stitched scores above the threshold that 95 % of the native ones pass: 0.95 where they cannot
        be told apart. {scores}"""),
)}
"""Measures of each cell with each detector. Their full names are ``dm.ood_mahalanobis`` and so on."""
DETECTOR_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Pattern of a valid detector name."""
_BY_DETECTOR = re.compile(
    rf"({'|'.join(METHOD_NAMES)})\.({'|'.join(_OF_DETECTOR)})_({DETECTOR_NAME.pattern})")


def _find_detector_measure(name: str) -> Measure | None:
    """Return the measure of any detector, ``dm.ood_NAME``, or None for another name."""
    found = _BY_DETECTOR.fullmatch(name)
    if found is None:
        return None
    method, what, detector = found.groups()
    return _name_fully(_OF_DETECTOR[what], method, detector)


_VARIANT = re.compile(rf"(?P<base>[^:@]+)(?P<tail>(:[^:@]+)?(@({'|'.join(ALIGNMENTS)}))?)")
MEASURES: dict[str, Measure] = {f"{method}.{m.name}": _name_fully(m, method)
                                for method in METHOD_NAMES for m in _OF_METHOD}
"""Measures that need no detector, by name in the order of tables; `register_measure` adds the indices."""


def register_measure(entry: Measure) -> Measure:
    """Add a measure to the table, so that tables, reports and `get_measure` find it."""
    MEASURES[entry.name] = entry
    return entry


def _find_measure(name: str) -> Measure | None:
    """Return the measure called `name`, which may have an argument or an alignment, or None."""
    if name in MEASURES:
        return MEASURES[name]
    parts = _VARIANT.fullmatch(name)
    if parts and parts["tail"] and (base := MEASURES.get(parts["base"])) and not base.functional:
        return base.variant(parts["tail"])
    return _find_detector_measure(name)


def get_base_name(name: str) -> str:
    """Return the name without argument and alignment."""
    return re.split("[:@]", name)[0]


def get_measure(name: str) -> Measure:
    """Return the measure called `name`, also of a detector; an unknown name raises `SutureError`."""
    found = _find_measure(name)
    if found is None:
        raise make_unknown_error("measure", name, MEASURES)
    return found


def sort_measures(names: Iterable[str]) -> list[str]:
    """Return the measures among `names`, each once, in the order of tables and reports.

    Detectors' measures follow those of their method, in the order given. Indices with an alignment come last.
    """
    given = list(dict.fromkeys(names))
    methods = list(METHOD_NAMES)
    ranks = {name: k for k, name in enumerate(MEASURES)}

    def rank(name: str) -> tuple[int, int, int]:
        method, base = name.partition(".")[0], get_base_name(name)
        view = ALIGNMENTS.index(name.partition("@")[2]) + 1 if "@" in name else 0
        return methods.index(method) if method in methods else len(methods), view, ranks.get(base, len(ranks))

    return sorted((n for n in given if _find_measure(n)), key=rank)
