"""Curves of a comparison on its page, as points of SVG: training losses, and histograms of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from suture.numbers import METHOD_NAMES, Floats
from suture.results.drawing.histograms import (
    choose_bins,
    collect_scores,
    compute_densities,
    list_scored_detectors,
)
from suture.results.measured import Measured


def build_loss_curve(measured: Measured) -> dict[str, Any] | None:
    """Build the mean, best and worst training loss over the cells as SVG points."""
    import pandas as pd

    losses = measured.arrays.get("tlm.loss")
    if losses is None or losses.ndim != 3 or losses.shape[-1] < 2:
        return None
    flat = losses.reshape(-1, losses.shape[-1]).astype(np.float64)
    if "tlm.held_out" in measured.arrays:  # cells that stopped early keep their last loss
        flat = pd.DataFrame(flat).ffill(axis=1).to_numpy()
    flat = flat[np.isfinite(flat).all(axis=1)]
    if not len(flat):
        return None
    mean, low, high = flat.mean(axis=0), flat.min(axis=0), flat.max(axis=0)
    top = float(high.max()) or 1.0
    width, height = 320.0, 120.0

    def points(line: Any) -> list[str]:
        return [f"{width * k / (len(line) - 1):.1f},{height * (1 - max(0.0, v) / top):.1f}"
                for k, v in enumerate(line)]

    return {"width": width, "height": height, "mean": " ".join(points(mean)),
            "band": " ".join(points(low) + points(high)[::-1]), "top": f"{top:.3g}", "epochs": len(mean),
            "cells": len(flat), "first": f"{mean[0]:.3g}", "last": f"{mean[-1]:.3g}",
            "worst": f"{high[-1]:.3g}"}


def build_histograms(measured: Measured) -> dict[str, Any] | None:
    """Build histograms of the first detector's scores as SVG paths, a panel for each target site.

    A panel has paths by kind: native, auxiliary, unseen and stitched scores (all source layers).
    """
    detector = next(iter(list_scored_detectors(measured)), None)
    if detector is None:
        return None
    panels = [_build_panel(site, collect_scores(measured, detector, place))
              for place, site in enumerate(measured.targets)]
    kinds = [kind for kind in ("native", "auxiliary", "unseen", *METHOD_NAMES)
             if any(kind in panel["paths"] for panel in panels)]
    return {"detector": detector, "panels": panels,
            "kinds": [(kind, METHOD_NAMES.get(kind, kind)) for kind in kinds]}


def _build_panel(site: str, found: Mapping[str, Floats]) -> dict[str, Any]:
    bins = choose_bins(found)
    heights = compute_densities(found, bins)
    # High peaks, such as those of the end bins, would hide the native scores.
    native = float(heights["native"].max()) if "native" in heights else np.inf
    top = 1.08 * max((min(float(h.max()), 2 * native) for h in heights.values()), default=1.0) or 1.0
    return {"site": site, "low": f"{bins[0]:.3g}", "high": f"{bins[-1]:.3g}",
            "paths": {kind: _trace_steps(np.minimum(height / top, 1)) for kind, height in heights.items()}}


def _trace_steps(shares: Floats, width: float = 160, height: float = 64) -> str:
    """Trace a histogram, shares of the height from left to right, as the path of its outline."""
    step = width / len(shares)
    return f"M0 {height:g}" + "".join(f"V{height * (1 - share):.1f}H{step * k:.1f}"
                                      for k, share in enumerate(shares.tolist(), 1)) + f"V{height:g}"
