"""One comparison under way: the stages that compute it, what they leave behind, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import suture.indices as index_table
from suture import scores
from suture._errors import SutureError, first_line
from suture.aligned import AlignedMoments
from suture.batches import Batch, Batches, on_device, pieces
from suture.calls import no_gradients
from suture.detection import Detection
from suture.detectors.fitting import Fitting
from suture.detectors.scoring import score_arrays, score_rows
from suture.fingerprints import fingerprint
from suture.frechet import frechet
from suture.grids import NonFiniteError
from suture.measures import in_order, measure
from suture.naming import SiteSpec
from suture.plans import PRECISIONS, Plan
from suture.prepare import few, fold, micro_batch, pack, prepare
from suture.provenance import content_of, display_names, versions
from suture.report.marks import marked_words
from suture.representations import Alignment, mask_of
from suture.results import COLUMNS, Comparison
from suture.sites import SitedNetwork
from suture.spectra import Pair
from suture.stitching import StitchingLayer, convergence, direct_match
from suture.stitching.evaluate import Evaluator, arrays_of, same_examples, scores_of
from suture.stitching.objective import check_batch, check_labels, logits_of
from suture.stitching.task import Cell, Curves, GroupTrainer, cell_seed, fitting_data


@dataclass
class Run:
    """One comparison under way. Stages add rows, arrays and notes; `result` is what there is so far."""

    source: SitedNetwork
    target: SitedNetwork
    names: tuple[str, str]
    fit: Batches
    test: Batches
    plan: Plan
    micro: int
    key: str
    prints: tuple[str, str]
    whole: Batches
    detection: Detection | None = None
    fitting: tuple[Batches, Batches | None] | None = None
    grid: AlignedMoments | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    excluded: dict[Cell, str] = field(default_factory=dict)

    @classmethod
    def start(cls, source: nn.Module, target: nn.Module | None, data: Any, test: Any, plan: Plan, *,
              sites: SiteSpec = None, target_sites: SiteSpec = None, allow_bypass: bool = False,
              names: tuple[str, str] | None = None, batch_size: int = 256) -> Run:
        """Prepare both networks and look at the first batch (arguments as for `suture.compare`).

        Raises:
            SutureError: bad input.
        """
        if data is None:
            raise SutureError("expected data to compare the networks on, got none; pass a loader or (inputs, labels)")
        whole = Batches(data, size=batch_size)
        fit = whole if plan.examples is None else Batches(data, size=batch_size, most=plan.examples)
        tested = Batches(data if test is None else test, size=batch_size, name="data" if test is None else "test data")
        fitting = fitting_data(data, plan.recipe) if "tlm" in plan.methods else None
        same_network = target is None or target is source
        other = source if target is None else target
        first = on_device(next(iter(fit)), plan.device)
        if "tlm" in plan.methods:
            check_batch(first, plan.recipe)
        mine = prepare(source, few(first.source), plan.device, "source")
        yours = mine if same_network else prepare(other, few(first.target), plan.device, "target")
        shared = same_network and first.source is first.target and target_sites is None
        a = SitedNetwork(mine, first.source, sites, allow_bypass=allow_bypass, name="source")
        b = a if shared else SitedNetwork(yours, first.target, sites if target_sites is None else target_sites,
                                          allow_bypass=allow_bypass, name="target")
        keep = {s.path for s in (*a.sites, *b.sites)}
        for network, inputs in {mine: first.source, yours: first.target}.items():
            fold(network, few(inputs), keep)
            pack(network, few(inputs))
        micro = micro_batch(max(a.peak, b.peak), plan.device)
        prints = (fingerprint(source), fingerprint(other))
        key = content_of((prints, type(source).__qualname__, type(other).__qualname__, a.infos, b.infos,
                          plan.settings()), fit, tested, *plan.outside())
        detection = Detection(plan.ood, b, plan.device, micro, plan.seed, prints[1], data) if plan.ood else None
        run = cls(a, b, names or display_names(source, other, same_network), fit, tested, plan, micro, key, prints,
                  whole, detection, fitting)
        if plan.methods:
            run._look_ahead(first)
        for i, j in run.cells if plan.methods else ():
            try:
                plan.family.check(a.shapes[i].width, b.shapes[j].width)
            except SutureError as e:
                run.excluded[i, j] = str(e)
        if run.excluded and len(run.excluded) == len(run.cells):
            raise SutureError(next(iter(run.excluded.values())))
        return run

    def _look_ahead(self, first: Batch) -> None:
        """Try on the first examples what comes late, so that a long run does not end with bad input."""
        if self.detection is not None:
            self.detection.rehearse(Batch(few(first.source), few(first.target), None))
        batch = on_device(next(iter(self.test)), self.plan.device)
        try:
            with no_gradients():
                self.source.front(few(batch.source))
                logits = logits_of(self.target.full(few(batch.target)).output)
        except RuntimeError as e:
            raise SutureError(f"a network fails on the {self.test.name}: {first_line(e)}; give test data like the "
                              "data") from e
        if batch.labels is not None:
            check_labels(batch.labels, logits)

    @property
    def cells(self) -> list[Cell]:
        return list(product(range(len(self.source.sites)), range(len(self.target.sites))))

    def stages(self) -> list[tuple[str, Callable[[], None]]]:
        """Names and work, in order. Direct matching needs only what the moments leave behind."""
        work: list[tuple[str, Callable[[], None]]] = [("moments", self.moments)]
        if "dm" in self.plan.methods:
            work.append(("dm", lambda: self.evaluate("dm", self.excluded)))
        if "tlm" in self.plan.methods:
            work.append(("tlm", self.task_loss))
        return work

    # -- stages --------------------------------------------------------------------------------------------------

    def moments(self) -> None:
        """One pass for all cells; indices, direct matching and training-free detectors from it."""
        grid = self._ready()
        short: list[tuple[int, int, int]] = []
        constant: dict[int, None] = {}
        for i, j in self.cells:
            pair = grid.pair(i, j)
            if pair.x.rank + pair.y.rank >= pair.moments.n:
                short.append((pair.moments.n, i, j))
            if pair.x.rank == 0:
                constant[i] = None
            for name in self.plan.indices:
                value = index_table.INDICES[name](pair)
                self._row(i, j, name, scores.Estimate(value.value, reason=value.reason), pair.moments.n)
            if (i, j) not in self.excluded:
                self._match(i, j, pair, grid)
        self.counts["n_fit"] = grid.examples
        self._note_rows(list(constant), short)
        if self.detection is not None:
            self.arrays |= self.detection.arrays()
            self.notes += self.detection.notes

    def _ready(self) -> AlignedMoments:
        """The moments, and the detectors made; a run that was taken over does that pass again."""
        if self.grid is None:
            fitting = self.detection.fitting() if self.detection is not None else None
            self.grid = self._moments_pass(fitting if self.fit is self.whole else None)
            if self.detection is not None and fitting is not None:
                if self.fit is not self.whole and fitting.needed:
                    self._detectors_pass(fitting)
                self.detection.finish(fitting, self.whole, self.plan.progress)
        return self.grid

    def _detectors_pass(self, fitting: Fitting) -> None:
        """Native representations of all data, where the moments are those of a few examples."""
        with no_gradients():
            for batch in self.whole:
                for piece in pieces(on_device(batch, self.plan.device), self.micro):
                    xs = self.target.front(piece.target)
                    for x, site in zip(xs, self.target.sites, strict=True):
                        if not torch.isfinite(x.sum()):
                            raise SutureError(f"NaN or inf in the representation at target site {str(site)!r} in the "
                                              "data; check the inputs and weights, or leave this site out")
                    fitting.update(xs, piece.labels, mask_of(piece.target))

    def _moments_pass(self, fitting: Fitting | None) -> AlignedMoments:
        a, b = self.source, self.target
        grid = AlignedMoments(a.shapes, b.shapes, self.plan.alignment, same=a is b, folds=self.plan.folds,
                              precision=PRECISIONS[self.plan.precision], higher="cka_debiased" in self.plan.indices)
        with no_gradients():
            for k, batch in enumerate(self.fit):
                for piece in pieces(on_device(batch, self.plan.device), self.micro):
                    try:
                        xs = a.front(piece.source)
                        ys = xs if a is b else b.front(piece.target)
                        grid.update(xs, ys, mask_of(piece.source), mask_of(piece.target))
                        if fitting is not None:
                            fitting.update(ys, piece.labels, mask_of(piece.target))
                    except NonFiniteError as e:
                        site = (a if e.side == "source" else b).sites[e.index]
                        raise SutureError(f"NaN or inf in the representation at {e.side} site {str(site)!r}, in batch "
                                          f"{k} of the data; check the inputs and weights, or leave this site out"
                                          ) from None
                    except RuntimeError as e:
                        raise SutureError(f"a network fails on batch {k} of the data, after the first ones went well: "
                                          f"{first_line(e)}; give batches of one input size") from e
                if self.plan.progress:
                    self.plan.progress("moments", k + 1, self.fit.total())
        return grid

    def _match(self, i: int, j: int, pair: Pair, grid: AlignedMoments) -> None:
        try:
            match = direct_match(pair, self.plan.family, grid.folds(i, j) if self.plan.folds > 1 else None)
        except SutureError as e:  # a sparse map that is not found in the allowed steps
            self.excluded[i, j] = str(e)
            return
        if grid.alignments[i, j].learns_prefix:
            self.arrays[f"dm.prefix/{i}/{j}"] = grid.prefix(j).cpu().numpy()
        self.arrays[f"dm.weight/{i}/{j}"] = match.weight.cpu().numpy()
        self.arrays[f"dm.bias/{i}/{j}"] = match.bias.cpu().numpy()
        shape = (len(self.source.sites), len(self.target.sites))
        for name, value in (("rank", match.rank), ("condition", match.condition), ("fit_residual", match.residual)):
            self.arrays.setdefault(f"dm.{name}", np.full(shape, np.nan))[i, j] = value

    def _note_rows(self, constant: list[int], short: list[tuple[int, int, int]]) -> None:
        if constant:
            names = ", ".join(str(self.source.sites[i]) for i in constant)
            self.notes.append(f"constant representation at {names}: similarities are "
                              "missing there, and direct matching predicts the target's mean")
        if short:
            n, i, j = min(short)
            self.notes.append(f"{n} rows are too few for {len(short)} of {len(self.cells)} cells, such as "
                              f"{self.source.sites[i]} into {self.target.sites[j]}: cca, pwcca or r2 are missing, "
                              "and direct matching is the solution of least norm where the source has more features")

    def layer(self, method: str, i: int, j: int) -> StitchingLayer:
        """The fitted layer of a cell, from the arrays."""
        alone = {k: torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias", "prefix")
                 if f"{method}.{k}/{i}/{j}" in self.arrays}
        return self.new_layer(i, j).set(**alone).to(self.plan.device)

    def new_layer(self, i: int, j: int) -> StitchingLayer:
        """A layer for a cell, not fitted."""
        return StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j], self.plan.alignment),
                              self.plan.family, relu=self.plan.relu)

    def train(self) -> tuple[Curves, dict[str, dict[Cell, float]]]:
        """Train the stitching layers of all cells by the recipe; learning curves, and objectives at the end."""
        assert self.fitting is not None
        recipe, device = self.plan.recipe, self.plan.device
        layers = {c: self._initial(*c) for c in self.cells if c not in self.excluded}
        trainer = GroupTrainer(self.source, self.target, layers, recipe, self.micro)
        curves = trainer.fit(self.fitting[0], device, self.plan.progress, self.fitting[1])
        for (i, j), layer in layers.items():
            fitted = {"weight": layer.weight, "bias": layer.bias, "prefix": layer.prefix}
            self.arrays |= {f"tlm.{k}/{i}/{j}": v.detach().cpu().numpy() for k, v in fitted.items() if v is not None}
        self.arrays |= convergence.curve_arrays(curves, (len(self.source.sites), len(self.target.sites)), recipe.epochs)
        self.notes += curves.notes
        return curves, self._objectives(trainer, {c: m for c, m in layers.items() if c not in curves.failed})

    def task_loss(self) -> None:
        """Train the stitching layers of all cells, evaluate them, mark what has not converged."""
        curves, ends = self.train()
        self.evaluate("tlm", self.excluded | curves.failed)
        own = convergence.own_layers(self.rows) if self.source is self.target else {}
        sources, targets = ([str(s) for s in n.sites] for n in (self.source, self.target))
        found = convergence.judge(curves, self.plan.recipe, own=own, ends=ends.get("tlm"), matched=ends.get("dm"),
                                  targets=targets)
        convergence.mark_rows(self.rows, sources, targets, found)
        if found:
            trained = len(self.cells) - len(self.excluded | curves.failed)
            self.notes.append(f"task loss matching has not converged: {marked_words(found.values(), trained)}; "
                              "train longer before reading the TLM map")

    def _initial(self, i: int, j: int) -> StitchingLayer:
        recipe = self.plan.recipe
        if recipe.init == "dm":
            return self.layer("dm", i, j)
        layer = self.new_layer(i, j)
        seed = cell_seed(recipe.seed, str(self.source.sites[i]), str(self.target.sites[j]))
        made = layer.init_identity() if recipe.init == "identity" else layer.init_random(seed)
        return made.to(self.plan.device)

    def _objectives(self, trainer: GroupTrainer, trained: dict[Cell, StitchingLayer]) -> dict[str, dict[Cell, float]]:
        """Objectives on the fitting data of the trained layers and direct matching's, where one says something.

        A single epoch is marked whatever it reached; under a penalty the trained layer need not be the better one.
        """
        assert self.fitting is not None
        if self.plan.recipe.epochs == 1 or self.plan.family.name in ("ridge", "sparse") or not trained:
            return {}
        kinds = {"tlm": trained, "dm": {c: self.layer("dm", *c) for c in trained}}
        found = {name: trainer.objective(self.fitting[0], self.plan.device, layers, self.plan.progress)
                 for name, layers in kinds.items()}
        for name, values in found.items():
            array = np.full((len(self.source.sites), len(self.target.sites)), np.nan)
            for c, value in values.items():
                array[c] = value
            self.arrays[f"{name}.objective"] = array
        return found

    def evaluate(self, method: str, failed: dict[Cell, str]) -> None:
        """Run every network stitched by `method` over the test data; `failed` says why a cell has no layer."""
        layers = {c: self.layer(method, *c) for c in self.cells if c not in failed}
        if self.detection is not None:
            self._ready()
        scoring = self.detection.scoring() if self.detection is not None else None
        found = Evaluator(self.source, self.target, layers, self.micro, scoring).run(
            self.test, self.plan.device, self.plan.progress, f"evaluating {method}")
        shape = (len(self.source.sites), len(self.target.sites))
        arrays = arrays_of(found, method, shape)
        if not same_examples(self.arrays, arrays):
            raise SutureError("the test data came in another order than in the pass before, or augmented at random, so "
                              "cells could not be compared in pairs; give a test loader with shuffle=False")
        self.arrays |= arrays
        for scored in scores_of(found, arrays, method, shape, self.plan.seed, failed):
            self._row(*scored)
        self.counts["n_test"] = len(found.own)
        if scoring is not None and self.detection is not None:
            self._distances(method, self._ready(), failed)
            scored_arrays = score_arrays(scoring, method, shape, self.plan.seed)
            self.arrays |= scored_arrays
            self.detection.judge(scored_arrays, scoring)
            for scored in score_rows(arrays | scored_arrays, method, shape, self.detection.ood.names, self.plan.seed,
                                     failed):
                self._row(*scored)

    def _distances(self, method: str, grid: AlignedMoments, failed: dict[Cell, str]) -> None:
        """Frechet distances of stitched from native representations, from the moments."""
        for i, j in self.cells:
            reason = failed.get((i, j)) or ("there is no closed form behind a ReLU" if self.plan.relu else "")
            pair, parts = grid.pair(i, j), None
            if not reason:
                weight, bias = (torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias"))
                parts = frechet(weight, bias, pair)
            for part in ("total", "shift", "shrinkage", "rotation"):
                e = scores.missing(reason) if parts is None else getattr(parts, part)
                name = f"{method}.frechet" + ("" if part == "total" else f"_{part}")
                self._row(i, j, name, e, pair.moments.n)

    def _row(self, i: int, j: int, name: str, e: scores.Estimate, n: int) -> None:
        self.rows.append({"source": str(self.source.sites[i]), "target": str(self.target.sites[j]), "measure": name,
                          "value": e.value, "low": e.low, "high": e.high, "n": n,
                          "direction": measure(name).direction, "reason": e.reason, "mark": ""})

    # -- results -------------------------------------------------------------------------------------------------

    def take_over(self, previous: Comparison) -> None:
        """Continue from an earlier result of the same networks, data and settings.

        Raises:
            SutureError: it is of another comparison.
        """
        if previous.meta.get("key") != self.key:
            raise SutureError("the earlier result is of other networks, data or settings; "
                              "choose another output folder, or remove it")
        self.rows = previous.table.to_dict("records")  # type: ignore[assignment]
        self.arrays = dict(previous.arrays)
        self.notes = [n for n in previous.meta["notes"] if n not in self._standing_notes()]
        self.done = list(previous.meta["stages"])
        self.excluded = {(int(i), int(j)): why for i, j, why in previous.meta["excluded"]}
        if self.detection is not None:
            self.detection.about = previous.meta.get("ood", {})
        self.counts = {k: previous.meta[k] for k in ("n_fit", "n_test") if previous.meta.get(k) is not None}

    def _standing_notes(self) -> list[str]:
        notes = []
        if not self.plan.held_out and self.plan.methods:
            notes.append("no test data were given: stitched networks are evaluated on the data they were fitted to")
        bypassed = [str(i.site) for s in (self.source, self.target) for i in s.infos if i.bypass]
        if bypassed:
            notes.append(f"bypassed sites ({', '.join(dict.fromkeys(bypassed))}): their stitched networks still see "
                         "the target's own activations on another path")
        return notes

    def result(self) -> Comparison:
        """The comparison as far as it is."""
        table = pd.DataFrame(self.rows, columns=COLUMNS)
        order = {name: k for k, name in enumerate(in_order(table["measure"]))}
        table = table.sort_values("measure", key=lambda c: c.map(order), kind="stable", ignore_index=True)
        same = self.prints[0] == self.prints[1] and self.source is self.target
        alike = self.source.sites == self.target.sites and self.source.shapes == self.target.shapes
        accuracy = self.arrays["target.correct"].mean() if "target.correct" in self.arrays else None
        meta = {
            "key": self.key, "stages": list(self.done), "settings": self.plan.settings(), "seed": self.plan.seed,
            "n_fit": self.counts.get("n_fit"), "n_test": self.counts.get("n_test"),
            "target_accuracy": None if accuracy is None else float(accuracy),
            "shapes": {"source": [str(s) for s in self.source.shapes], "target": [str(s) for s in self.target.shapes]},
            "fingerprints": list(self.prints), "device": str(self.plan.device), "micro_batch": self.micro,
            "excluded": [[i, j, why] for (i, j), why in self.excluded.items()],
            "notes": [*self._standing_notes(), *self.notes], "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(sys.argv),
        }
        if self.detection is not None and self.detection.about:
            meta["ood"] = self.detection.about
        return Comparison(self.names[0], self.names[1], tuple(map(str, self.source.sites)),
                          tuple(map(str, self.target.sites)), same, alike, table, dict(self.arrays), meta)
