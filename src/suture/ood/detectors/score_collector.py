"""The scores of native and stitched representations in one pass, and the measures computed from them."""

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

# Float32 rounding of |T - mean|² is 1e-14 |T|². A representation is constant unless it is well above that.
CONSTANT_SHARE = 1e-12
SAMPLED_EXAMPLES = 500
"""Number of first test examples whose features are kept for the two-sample classifier."""


@dataclass
class ScoreCollector:
    """A collector of the scores of one pass.

    Args:
        detectors: by name, one for each target site.
        shapes: of the target sites.
        tail_energy: keep the energy of the logits after stitched representations.
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
        """Score a batch of representations.

        `key` is a target site for native representations and a cell for stitched ones.
        """
        j = key if isinstance(key, int) else key[1]
        seen = SiteFeatures(x, self.shapes[j], mask)
        for name, detectors in self.detectors.items():
            self._append(name, key, detectors[j].score(seen))
        room = SAMPLED_EXAMPLES - self._kept.get(key, 0) if self.pooled else 0
        if room > 0:
            self._features.setdefault(key, []).append(seen.spread[:room].cpu())
            self._kept[key] = self._kept.get(key, 0) + len(self._features[key][-1])

    def add_logits(self, key: int | Cell, logits: Tensor, mask: Tensor | None = None) -> None:
        """Add the energy of the logits after representations.

        Logits are (N, classes), or (N, T, V), which are averaged over the unpadded tokens. `mask` is that of
        the inputs, (N, T). A mask of another shape belongs to other tokens and is ignored.
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
        """Names of all detectors that gave scores."""
        return list(dict.fromkeys(name for name, _ in self._scores))

    def join_scores(self, name: str) -> dict[int | Cell, Float32Array]:
        """Return the scores (N,) by site and cell."""
        return {key: torch.cat(parts).cpu().numpy() for (n, key), parts in self._scores.items() if n == name}

    def join_features(self, key: int | Cell) -> Floats:
        """Return the pooled features (n, F) that were kept."""
        return torch.cat(self._features[key]).double().numpy()


def stack_scores(found: ScoreCollector, method: str, shape: tuple[int, int],
                 seed: int) -> dict[str, Float32Array]:
    """Return the scores as arrays: ``native.NAME`` (T, N) and ``METHOD.score_NAME`` (S, T, N).

    Missing cells are nan. The two-sample classifier differs from cell to cell, so its native scores are
    ``METHOD.native_two_sample`` (S, T, N).
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
    """Return (source, target, measure, estimate, n) of every detector and cell.

    The measures are described in `suture.numbers.measures.OOD_MEASURES`.

    Args:
        arrays: of `stack_scores`, with ``target.spread`` and ``target.scale`` of the evaluation if they
            exist.
        method, shape, seed: as for `stack_scores`.
        names: of detectors.
        failed: reasons why cells have no stitched network.
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
    """Find the target sites whose representation is constant, so that their scores are rounding."""
    if "target.spread" not in arrays:
        return defaultdict(bool)
    spread, scale = (arrays[f"target.{k}"].sum(1, dtype=np.float64) for k in ("spread", "scale"))
    return {j: is_constant(a, b) for j, (a, b) in enumerate(zip(spread, scale, strict=True))}


def is_constant(spread: float, scale: float) -> bool:
    """Check that a sum of |T - mean|² is rounding, relative to the sum of |T|²."""
    return bool(spread <= CONSTANT_SHARE * scale)
