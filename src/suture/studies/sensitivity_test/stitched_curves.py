"""Stitching layers from cut representations into the network itself, fitted and evaluated at every rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from suture._base import derive_seed, expect
from suture.compare import Evaluator, Setup, score_cells
from suture.numbers import Estimate, Moments, NumericalError, Pair
from suture.representations import Cell
from suture.stitching import Curves, GroupTrainer, StitchingLayer, direct_match, find_unconverged
from suture.studies.probes.principal_components import Basis
from suture.studies.probes.whole_batches import WholeBatches
from suture.studies.sensitivity_test.cut_network import CutNetwork


class CurveValue(NamedTuple):
    """Value of a measure at a rank, with the reason why it is missing and the mark why not to trust it."""

    rank: int
    measure: str
    value: float
    low: float
    high: float
    n: int
    reason: str = ""
    mark: str = ""


class CutLayers:
    """Stitching of one site, cut to each rank, into itself.

    Args:
        setup: of the comparison of the network with itself.
        site: number of the site.
        ranks: at which layers are fitted.
        basis: principal components; None for those of each batch.
    """

    def __init__(self, setup: Setup, site: int, ranks: Sequence[int], basis: Basis | None) -> None:
        self.setup, self.site, self.ranks = setup, site, ranks
        self.network = CutNetwork(setup.source, site, ranks, basis)

    def match(self, pairs: Sequence[Pair], folds: Sequence[Sequence[Moments]]
              ) -> tuple[dict[Cell, StitchingLayer], dict[Cell, str]]:
        """Return the layers of direct matching, and the reasons of those that have none.

        `pairs` and `folds` are the moments at each rank.
        """
        layers: dict[Cell, StitchingLayer] = {}
        failed: dict[Cell, str] = {}
        family, device = self.setup.settings.affine_family, self.setup.settings.torch_device
        for k, (pair, parts) in enumerate(zip(pairs, folds, strict=True)):
            try:
                found = direct_match(pair, family, parts if family.needs_folds else None)
                made = self.setup.make_own_layer(self.site).set(found.weight, found.bias)
                layers[k, self.site] = made.to(device)
            except NumericalError as e:
                failed[k, self.site] = str(e)
        return layers, failed

    def train(self, start: Mapping[Cell, StitchingLayer]) -> tuple[dict[Cell, StitchingLayer], Curves]:
        """Return layers trained on the task loss, without those whose training failed, and their curves.

        `start` are those of direct matching.
        """
        setup, recipe = self.setup, self.setup.settings.recipe
        assert setup.data.training is not None
        layers: dict[tuple[int, ...], StitchingLayer] = {}
        for cell, matched in start.items():
            layer = setup.make_own_layer(self.site)
            if recipe.init == "random":
                # Equal at all ranks, so that ranks differ by the cut alone.
                layer.init_random(derive_seed(recipe.seed, str(setup.source.sites[self.site]),
                                              str(setup.target.sites[self.site])))
            elif recipe.init == "identity":
                layer.init_identity()
            else:
                layer.load_state_dict(matched.state_dict())
            layers[cell] = layer.to(setup.settings.torch_device)
        whole = isinstance(setup.pieces, WholeBatches)
        # Training halves the number.
        most = 2 * max(setup.micro_batch, recipe.batch_size) if whole else setup.micro_batch
        trainer = GroupTrainer(self.network, setup.target, layers, recipe, most, setup.task)
        batches, held_out = setup.data.training
        curves = trainer.fit(batches, setup.settings.torch_device, setup.settings.tell_progress, held_out)
        expect(not (whole and curves.notes), "memory for whole batches in training", "less",
               "write a smaller batch size in tlm=, or basis='data'")
        return {(k[0], k[1]): layer for k, layer in layers.items() if k not in curves.failed}, curves

    def mark(self, values: Sequence[CurveValue], curves: Curves) -> list[CurveValue]:
        """Return the values of trained layers with the marks of those that have not converged.

        As for a comparison, the layer of the whole width must reach the network itself.
        """
        targets = [str(s) for s in self.setup.target.sites]
        whole = {v.measure: v.value for v in values if v.rank == self.ranks[0] and not v.reason}
        reached = whole.get("tlm.relative_accuracy", whole.get("tlm.agreement", 1.0))
        found = find_unconverged(curves, self.setup.settings.recipe, own={targets[self.site]: reached},
                                 targets=targets)
        marks = {self.ranks[k]: why for (k, _), why in found.items()}
        return [v._replace(mark=marks.get(v.rank, "")) for v in values]

    def evaluate(self, method: str, layers: Mapping[Cell, StitchingLayer], failed: Mapping[Cell, str]
                 ) -> list[CurveValue]:
        """Return every measure of the stitched networks at every rank."""
        setup, settings = self.setup, self.setup.settings
        evaluator = Evaluator(self.network, setup.target, layers, setup.pieces, None, setup.task)
        found = evaluator.run(setup.data.test, settings.torch_device, settings.tell_progress,
                              f"evaluating {method}")
        others = {(k, t): "another site" for k in range(len(self.ranks))
                  for t in range(len(setup.target.sites)) if t != self.site}
        rows = score_cells(found, method, settings.seed, {**failed, **others})
        return [make_value(self.ranks[r.i], r.measure, r.value, r.n) for r in rows if r.j == self.site]


def make_value(rank: int, measure: str, e: Estimate, n: int) -> CurveValue:
    """Make the value of a measure at a rank from an estimate."""
    return CurveValue(rank, measure, e.value, e.low, e.high, n, e.reason)
