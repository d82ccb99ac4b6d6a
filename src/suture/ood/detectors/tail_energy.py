"""A detector by the energy of the target network's own logits."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.ood.detector import Detector
from suture.ood.features import SiteFeatures


class TailEnergy(Detector):
    """The log-sum-exp of the target network's logits after a site, averaged over tokens without padding.

    A mask of another shape than the logits belongs to other tokens and is ignored.
    """

    about = ("Minus the energy of the target network's own logits, log sum exp, after the site (Liu et al. "
             "2020).")
    needs_logits = two_sided = True

    def score(self, seen: SiteFeatures) -> Tensor:
        assert seen.logits is not None
        found: Tensor = seen.logits.float().logsumexp(-1)
        if found.ndim == 1:
            return found
        kept = seen.mask
        if kept is None or kept.shape != found.shape:
            kept = torch.ones_like(found, dtype=torch.bool)
        return found.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp(min=1)
