"""What a measure is: its name, range and direction. The table that every table and plot reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from suture._errors import unknown


@dataclass(frozen=True)
class Measure:
    """A similarity measure of a cell.

    Attributes:
        name: key in tables, such as ``"cka"`` or ``"dm.relative_accuracy"``.
        label: how it is written in a figure.
        low, high: fixed colour limits; also the native range unless a docstring says otherwise.
        larger_is_more_similar: direction of the native values.
        functional: needs a stitched network (True) or only two matrices (False).
        about: one sentence: definition and source.
    """

    name: str
    label: str
    low: float
    high: float
    larger_is_more_similar: bool
    functional: bool
    about: str

    @property
    def direction(self) -> str:
        """``"larger"`` or ``"smaller"``: which values mean more similar."""
        return "larger" if self.larger_is_more_similar else "smaller"

    def common(self, value: float) -> float:
        """The value in the form in which larger means more similar."""
        return value if self.larger_is_more_similar else -value


def _structural(name: str, label: str, about: str, *, low: float = 0.0, high: float = 1.0,
                larger: bool = True) -> Measure:
    return Measure(name, label, low, high, larger, False, about)


_STRUCTURAL = (
    _structural("cka", "CKA (biased)", "Linear centred kernel alignment, biased HSIC (Kornblith et al. 2019)."),
    _structural("cka_debiased", "CKA (debiased)",
                "Linear CKA from the unbiased HSIC estimator (Song et al. 2012; Nguyen et al. 2021)."),
    _structural("cca", "mean CCA", "Mean canonical correlation (Raghu et al. 2017; Kornblith et al. 2019)."),
    _structural("pwcca", "PWCCA (source weighted)",
                "Projection weighted CCA, weights from the source (Morcos et al. 2018)."),
    _structural("pwcca_target", "PWCCA (target weighted)",
                "Projection weighted CCA, weights from the target (Morcos et al. 2018)."),
    _structural("opd", "OPD (squared)", "Squared orthogonal Procrustes distance of the centred matrices at unit "
                "Frobenius norm, 2 - 2 nuclear norm (Ding et al. 2021).", high=2.0, larger=False),
    _structural("r2", "regression R²", "Share of the target's variance that an affine map of the source explains "
                "on the data it was fitted to (Kornblith et al. 2019)."),
)
# Colours of divergences end where a uniform guess over ten classes stands against a sure prediction; the same for
# every number of classes, so that maps of different data can be compared.
_NATS = round(math.log(10), 3)
_METHODS = {"dm": "DM", "tlm": "TLM"}


def _functional(method: str) -> tuple[Measure, ...]:
    tag = _METHODS[method]
    kind = {"dm": "direct matching", "tlm": "task loss matching"}[method]
    return (
        Measure(f"{method}.accuracy", f"{tag} accuracy", 0, 1, True, True,
                f"Test accuracy of the network stitched by {kind}; Wilson interval."),
        Measure(f"{method}.relative_accuracy", f"{tag} relative accuracy", 0, 1, True, True,
                f"Test accuracy of the network stitched by {kind} over that of the target network; "
                "bootstrap over examples, paired."),
        Measure(f"{method}.agreement", f"{tag} agreement", 0, 1, True, True,
                f"Share of test examples on which the network stitched by {kind} predicts the class that the "
                "target network predicts; Wilson interval."),
        Measure(f"{method}.kl", f"{tag} KL", 0, _NATS, False, True,
                f"Mean over test examples of KL(target network's predictions || those of the network stitched by "
                f"{kind}), in nats, from the softmax of the logits; bootstrap over examples. No upper limit."),
        Measure(f"{method}.ce_gap", f"{tag} cross-entropy gap", 0, _NATS, False, True,
                f"Test cross-entropy of the network stitched by {kind} minus that of the target network, in nats; "
                "below 0 where the stitched one is better; bootstrap over examples, paired. No upper limit."),
        Measure(f"{method}.residual", f"{tag} residual", 0, 1, False, False,
                f"|S - T|² / |T|² on test data, ratio of sums: S stitched by {kind}, T the target's own "
                "representation; bootstrap over examples, paired."),
        Measure(f"{method}.residual_batches", f"{tag} residual (batches)", 0, 1, False, False,
                f"|S - T|² / |T|², S stitched by {kind}: mean over the test batches, the last one may be smaller "
                "(the paper's structural DM; Balogh and Jelasity 2025). n counts batches; Student's t interval over "
                "them, none for a single batch."),
        Measure(f"{method}.r2", f"{tag} R² (test)", 0, 1, True, False,
                f"1 - sum |S - T|² / sum |T - mean T|² on test data, S stitched by {kind}, the mean per channel over "
                "all rows; below 0 where S is worse than that mean. Bootstrap over examples, paired, with the mean "
                "held fixed."),
    )


MEASURES: Mapping[str, Measure] = {
    m.name: m for m in (*_functional("dm"), *_functional("tlm"), *_STRUCTURAL)
}
"""Every measure by name, in the order in which tables and reports show them."""


def measure(name: str) -> Measure:
    """The entry of `MEASURES` called `name`; an error that names the nearest ones otherwise."""
    if name not in MEASURES:
        raise unknown("measure", name, MEASURES)
    return MEASURES[name]
