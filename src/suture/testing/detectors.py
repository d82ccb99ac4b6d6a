"""Laws of a detector of out-of-distribution representations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import Seed, SutureError, checked, seed_torch
from suture.data import Batches
from suture.networks import SitedNetwork, disable_gradients, prepare
from suture.ood import Detector, DetectorFitter, EnergyRecipe, NativeData, NativeSite, SiteFeatures
from suture.testing.laws import Law, LawBook, check_close, law

CLASSES, EXAMPLES = 4, 160
_CPU = torch.device("cpu")
_BRIEF = EnergyRecipe(epochs=3, tune_epochs=1, batch_size=32, lr=1e-2)


class _Small(nn.Module):
    """A network of images (1, 8, 8) with one site, `block`."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(x).mean((2, 3)))
        return logits


class _Site:
    """Native representations of the small network, and the detectors fitted to them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        g = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(EXAMPLES) % CLASSES
        patterns = torch.randn(CLASSES, 1, 8, 8, generator=g)
        self.inputs = patterns[self.labels] + 0.5 * torch.randn(EXAMPLES, 1, 8, 8, generator=g)
        with seed_torch(seed):
            network = prepare(_Small(), self.inputs[:4], _CPU, "network")
        self.network = SitedNetwork(network, self.inputs[:4], ["block"])
        with disable_gradients():
            done = self.network.run_full(self.inputs)
            self.native, self.logits = self.network.pick_representations(done)[0], done.output

    def describe(self, statistics: Any, labelled: bool = True, auxiliary: bool = True) -> NativeSite:
        data = (self.inputs, self.labels) if labelled else [self.inputs[:80], self.inputs[80:]]
        outside = 3 * torch.rand(EXAMPLES, 1, 8, 8, generator=torch.Generator().manual_seed(self.seed + 1))
        return NativeSite("block", self.network.shapes[0], self.seed, statistics, NativeData(
            self.network, data, Batches(data, size=32), _BRIEF, _CPU, EXAMPLES,
            auxiliary=outside if auxiliary else None))

    def fit(self, detector: Detector, sizes: Sequence[int] = (EXAMPLES,), labelled: bool = True,
            auxiliary: bool = True) -> Detector:
        """Return the detector fitted to the native representations in batches of these sizes."""
        fitter = DetectorFitter({"it": detector}, self.network.shapes, self.seed)
        for rows in _cut_rows(sizes):
            fitter.update([self.native[rows]], self.labels[rows] if labelled else None)
        return detector.fit_sites([self.describe(fitter.statistics["it"][0], labelled, auxiliary)])[0]

    def score(self, fitted: Detector, x: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return the scores of representations `x` of the same examples."""
        seen = [SiteFeatures(t[rows], self.network.shapes[0], None, self._run_tail(t)[rows])
                for t in (self.native, x)]
        with torch.no_grad():
            return fitted.score_pair(*seen)[1] if fitted.per_cell else fitted.score(seen[1])

    def _run_tail(self, x: Tensor) -> Tensor:
        with disable_gradients():
            output: Tensor = self.network.tail(0, x, self.network.run_full(self.inputs))
        return output


@checked
def detector_laws(detector: Detector, *, seed: Seed = 0) -> list[Law]:
    """Return the laws of a detector, checked on a small network of images with one site.

    Args:
        detector: not fitted, as in ``OOD(own={"name": detector})``.
        seed: seed of data, network and fit.
    """
    return _DetectorLaws(detector, seed).list_laws()


class _DetectorLaws(LawBook):
    def __init__(self, detector: Detector, seed: int) -> None:
        super().__init__()
        self._detector, self._site, self._before = detector, _Site(seed), dict(vars(detector))
        native, g = self._site.native, torch.Generator().manual_seed(seed + 2)
        self._moved = native + 3 * native.std() * torch.randn(1, 6, 1, 1, generator=g).sign()
        for need, less in (("labels", {"labelled": False}), ("auxiliary data", {"auxiliary": False})):
            needed = bool(getattr(detector, f"needs_{need.split()[0]}"))
            self.vary(f"needs {need}", f"It {'needs' if needed else 'does not need'} {need}, as it says.",
                      self._check_need, less, needed)

    @law("Scores are finite numbers, one for each example.")
    def scores(self) -> None:
        for found in self._scores:
            assert found.shape == (EXAMPLES,), f"Got shape {tuple(found.shape)} for {EXAMPLES} examples."
            assert torch.isfinite(found).all(), "Some are NaN or infinite."

    @law("Shifted representations score otherwise, and lower on average unless it is two_sided.")
    def direction(self) -> None:
        own, other = (float(found.mean()) for found in self._scores)
        assert own != other, f"Both have the mean {own}."
        assert self._detector.two_sided or other < own, f"Means: {own} of native, {other} of shifted ones."

    @law("The same data and seed give the same scores.")
    def same_seed(self) -> None:
        self._compare(self._site.score(self._site.fit(self._detector), self._moved), "of a second fit")

    @law("The cut of the data into batches changes no score.")
    def batches(self) -> None:
        sizes = 1, 30, EXAMPLES - 31
        other = self._site.fit(self._detector, sizes)
        self._compare(self._site.score(other, self._moved), "of a fit in other batches")
        if not other.per_cell:
            parts = [self._site.score(self._fitted, self._moved, rows) for rows in _cut_rows(sizes)]
            self._compare(torch.cat(parts), "in other batches")

    @law("A detector that is saved and restored gives the same scores.")
    def saving(self) -> None:
        state = {name: t.clone() for name, t in self._fitted.get_state().items()}
        again = self._detector.restore(self._site.describe(None), state)
        self._compare(self._site.score(again, self._moved), "after restoring")

    @law("A fit leaves the detector itself as it was.")
    def own_state(self) -> None:
        _ = self._fitted
        after = vars(self._detector)
        assert after.keys() == self._before.keys(), f"Its attributes are now {sorted(after)}."
        assert all(after[k] is v for k, v in self._before.items()), "An attribute has changed."

    @cached_property
    def _fitted(self) -> Detector:
        return self._site.fit(self._detector)

    @cached_property
    def _scores(self) -> tuple[Tensor, Tensor]:
        """Scores of native and of shifted representations."""
        return self._site.score(self._fitted, self._site.native), self._site.score(self._fitted, self._moved)

    def _compare(self, scores: Tensor, which: str) -> None:
        check_close(self._scores[1], scores, f"Scores {which}", least=1.0)

    def _check_need(self, less: dict[str, Any], needed: bool) -> None:
        refused = ""
        try:
            self._site.score(self._site.fit(self._detector, **less), self._moved)
        except SutureError as error:
            refused = str(error)
        assert bool(refused) == needed, f"Without, it fails: {refused}." if refused else "It works without."


def _cut_rows(sizes: Sequence[int]) -> list[Tensor]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [torch.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
