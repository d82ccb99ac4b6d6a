"""Run every stitched network over test data: one pass, per-example results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture._errors import SutureError
from suture.batches import Batches, Progress, on_device, pieces
from suture.calls import no_gradients
from suture.sites import SitedNetwork
from suture.stitching.layer import StitchingLayer
from suture.stitching.task import Cell, check_labels, logits_of


@dataclass(frozen=True)
class Evaluation:
    """Per-example results of stitched networks.

    Attributes:
        labels: (N,) or None where the data have none.
        own: (N,) classes that the target network predicts.
        predicted: per cell (N,) classes that the stitched network predicts.
        error: per cell (N,) squared distance of the stitched from the target's own representation, |S - T|².
        scale: per target site (N,) |T|².
    """

    labels: NDArray[np.int64] | None
    own: NDArray[np.int64]
    predicted: dict[Cell, NDArray[np.int64]]
    error: dict[Cell, NDArray[np.float32]]
    scale: dict[int, NDArray[np.float32]]


class Evaluator:
    """Evaluates stitched networks grouped by target site.

    Per batch: one front pass of the source, one full pass of the target, and the tails. Stitched representations are
    concatenated in front of a shared tail as far as the micro-batch allows.

    Args:
        source, target: frozen networks with their sites, on one device; the same object for self-stitching.
        layers: per cell, on the device.
        micro_batch: most examples that pass a tail at once.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Mapping[Cell, StitchingLayer],
                 micro_batch: int) -> None:
        self.source, self.target, self.layers, self.micro_batch = source, target, layers, micro_batch
        self._groups: dict[int, list[int]] = {}
        for i, j in layers:
            self._groups.setdefault(j, []).append(i)
        self._parts: dict[str, dict[object, list[Tensor]]] = {}

    @torch.no_grad()
    def run(self, batches: Batches, device: torch.device, progress: Progress | None = None,
            stage: str = "evaluation") -> Evaluation:
        """One pass over `batches`.

        Raises:
            SutureError: labels outside the classes of the network, an output that is not (N, classes).
        """
        self._parts = {k: {} for k in ("labels", "own", "predicted", "error", "scale")}
        for k, batch in enumerate(batches):
            for piece in pieces(on_device(batch, device), self.micro_batch):
                self._piece(piece.source, piece.target, piece.labels, piece.size, k)
            if progress:
                progress(stage, k + 1, batches.total())
        joined = {kind: {key: torch.cat(parts).cpu().numpy() for key, parts in of.items()}
                  for kind, of in self._parts.items()}
        return Evaluation(joined["labels"].get(0), joined["own"][0],
                          joined["predicted"], joined["error"], joined["scale"])  # type: ignore[arg-type]

    def _keep(self, kind: str, key: object, value: Tensor) -> None:
        self._parts[kind].setdefault(key, []).append(value)

    def _finite_squares(self, network: SitedNetwork, xs: list[Tensor], number: int) -> list[Tensor]:
        squares = [_squares(x.float()) for x in xs]
        for site, s in zip(network.sites, squares, strict=True):
            if not torch.isfinite(s).all():
                raise SutureError(f"NaN or inf in the representation at {network.name} site {str(site)!r}, in batch "
                                  f"{number} of the test data; check the inputs and weights, or leave this site out")
        return squares

    def _piece(self, source: object, target: object, labels: Tensor | None, size: int,
               number: int) -> None:
        with no_gradients():
            done = self.target.full(target)
            natives = self.target.representations(done)
            xs = natives if self.source is self.target else self.source.front(source)
        scales = self._finite_squares(self.target, natives, number)
        if xs is not natives:
            self._finite_squares(self.source, xs, number)
        logits = logits_of(done.output)
        if labels is not None:
            check_labels(labels, logits)
            self._keep("labels", 0, labels)
        self._keep("own", 0, logits.argmax(1))
        at_once = max(1, self.micro_batch // size)
        for j, sources in self._groups.items():
            native = natives[j].float()
            self._keep("scale", j, scales[j])
            for start in range(0, len(sources), at_once):
                some = sources[start:start + at_once]
                stitched = []
                for i in some:
                    s = self.layers[i, j](xs[i])
                    self._keep("error", (i, j), _squares(s.float() - native))
                    stitched.append(s)
                together = stitched[0] if len(some) == 1 else torch.cat(stitched)
                predicted = logits_of(self.target.tail(j, together, done)).argmax(1).view(len(some), -1)
                for i, p in zip(some, predicted, strict=True):
                    self._keep("predicted", (i, j), p)


def _squares(x: Tensor) -> Tensor:
    # No flatten: it would copy a channels-last map into another order first.
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))
    return norms.square()


