"""What detectors say of native and stitched representations while those pass by, and the numbers made of
it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch
from torch import Tensor

from suture.numbers import Arrays, Estimate, Float32Array, Floats, estimate_separation, make_missing_estimate
from suture.ood.detectors.site_features import Detector, SiteFeatures
from suture.ood.detectors.two_sample import score_two_sample
from suture.representations import Cell, Shape

# float32 rounding of |T - mean|² is 1e-14 |T|²; what is not well above it is a constant.
CONSTANT_SHARE = 1e-12
SAMPLED_EXAMPLES = 500
"""Test examples whose features are kept for the two-sample classifier: the first ones."""


@dataclass
class ScoreCollector:
    """Collects the scores of one pass.

    Args:
        detectors: by name, one for each target site.
        shapes: of the target sites.
        tail_energy: keep the energy of the logits behind stitched representations.
        pooled: keep the pooled features of the first `SAMPLED_EXAMPLES` examples: (N, F) float32 for each
            site and cell.
    """

    detectors: Mapping[str, Sequence[Detector]]
    shapes: Sequence[Shape]
    tail_energy: bool = False
    pooled: bool = False
    _scores: dict[tuple[str, int | Cell], list[Tensor]] = field(default_factory=dict)
    _features: dict[int | Cell, list[Tensor]] = field(default_factory=dict)
    _kept: dict[int | Cell, int] = field(default_factory=dict)

    @torch.no_grad()
    def add_representations(self, key: int | Cell, x: Tensor, mask: Tensor | None) -> None:
        """Score a batch of representations: `key` is a target site for native ones, a cell for stitched
        ones."""
        j = key if isinstance(key, int) else key[1]
        seen = SiteFeatures(x, self.shapes[j], mask)
        for name, detectors in self.detectors.items():
            self._append(name, key, detectors[j].score(seen))
        room = SAMPLED_EXAMPLES - self._kept.get(key, 0) if self.pooled else 0
        if room > 0:
            self._features.setdefault(key, []).append(seen.spread[:room].cpu())
            self._kept[key] = self._kept.get(key, 0) + len(self._features[key][-1])

    def add_logits(self, key: int | Cell, logits: Tensor, mask: Tensor | None = None) -> None:
        """Take in the logits behind representations: (N, classes), or (N, T, V), averaged over the tokens
        that count.

        The mask is one of the inputs, (N, T); one of another shape is of other tokens.
        """
        if not self.tail_energy:
            return
        energy = logits.float().logsumexp(-1)
        if energy.ndim == 2:
            whole = torch.ones_like(energy, dtype=torch.bool)
            kept = whole if mask is None or mask.shape != energy.shape else mask
            energy = energy.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp(min=1)
        self._append("tail_energy", key, energy)

    def _append(self, name: str, key: int | Cell, value: Tensor) -> None:
        self._scores.setdefault((name, key), []).append(value.float())

    @property
    def names(self) -> list[str]:
        """Of all that gave scores."""
        return list(dict.fromkeys(name for name, _ in self._scores))

    def join_scores(self, name: str) -> dict[int | Cell, Float32Array]:
        """(N,) by site and cell."""
        return {key: torch.cat(parts).cpu().numpy() for (n, key), parts in self._scores.items() if n == name}

    def join_features(self, key: int | Cell) -> Floats:
        """(n, F) pooled features that were kept."""
        return torch.cat(self._features[key]).double().numpy()


def stack_scores(found: ScoreCollector, method: str, shape: tuple[int, int],
                 seed: int) -> dict[str, Float32Array]:
    """Arrays of a comparison: ``native.NAME`` (T, N) and ``METHOD.score_NAME`` (S, T, N), nan where there is
    no cell.

    The two-sample classifier is another one in each cell: its native scores are ``METHOD.native_two_sample``.
    """
    arrays: dict[str, Float32Array] = {}
    for name in found.names:
        scores = found.join_scores(name)
        n = len(next(iter(scores.values())))
        native, stitched = (np.full((shape[1], n), np.nan, np.float32),
                            np.full((*shape, n), np.nan, np.float32))
        for key, values in scores.items():
            (native if isinstance(key, int) else stitched)[key] = values
        arrays |= {f"native.{name}": native, f"{method}.score_{name}": stitched}
    if found.pooled:
        pair = np.full((2, *shape, len(found.join_features(0))), np.nan, np.float32)
        for i, j in (key for key in found._features if isinstance(key, tuple)):
            if pair.shape[-1] < 2 or not np.isfinite(found.join_features((i, j))).all():
                continue
            pair[:, i, j] = score_two_sample(found.join_features(j), found.join_features((i, j)), seed=seed,
                                             quadratic=True)
        arrays |= {f"{method}.native_two_sample": pair[0], f"{method}.score_two_sample": pair[1]}
    return arrays


def tabulate_scores(arrays: Arrays, method: str, shape: tuple[int, int], names: Sequence[str], seed: int,
               failed: Mapping[Cell, str]) -> list[tuple[int, int, str, Estimate, int]]:
    """(source, target, measure, estimate, n) of every detector and cell; see
    `suture.numbers.measures.OOD_MEASURES`.

    Args:
        arrays: what `stack_scores` made, with ``target.spread`` and ``target.scale`` of the evaluation where
            they are.
        method, shape, seed: as there.
        names: of detectors.
        failed: why cells have no stitched network.
    """
    rows = []
    constant = _find_constant_sites(arrays)
    for name, (i, j) in product(names, product(*map(range, shape))):
        stitched = arrays[f"{method}.score_{name}"][i, j]
        own = f"{method}.native_{name}"
        native = arrays[own][i, j] if own in arrays else arrays[f"native.{name}"][j]
        reason = failed.get((i, j)) or ("the target's representation is constant on the test data"
                                        if constant[j] else "one example is too few"
                                        if len(native) < 2 else "")
        if reason:
            found = dict.fromkeys(("ood", "auroc", "ap", "fpr95"), make_missing_estimate(reason))
        else:
            s = estimate_separation(native, stitched, paired=True, seed=seed)
            found = {"ood": s.two_sided, "auroc": s.auroc, "ap": s.average_precision, "fpr95": s.fpr95}
        rows += [(i, j, f"{method}.{what}_{name}", e, len(native)) for what, e in found.items()]
    return rows


def _find_constant_sites(arrays: Arrays) -> dict[int, bool]:
    """Whether a target site gives one and the same representation; its scores are then rounding."""
    if "target.spread" not in arrays:
        return defaultdict(bool)
    spread, scale = (arrays[f"target.{k}"].sum(1, dtype=np.float64) for k in ("spread", "scale"))
    return {j: is_constant(a, b) for j, (a, b) in enumerate(zip(spread, scale, strict=True))}


def is_constant(spread: float, scale: float) -> bool:
    """Whether a sum of |T - mean|² is rounding, by the sum of |T|²."""
    return bool(spread <= CONSTANT_SHARE * scale)
