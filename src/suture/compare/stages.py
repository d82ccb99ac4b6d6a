"""One comparison under way: the stages that compute it, what they leave behind, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from suture._base import SutureError, check_free_memory, fingerprint_network
from suture.compare.assembly import assemble, compute_target_accuracy, list_standing_notes
from suture.compare.collect import (
    TokenShare,
    check_share,
    collect_moments,
    compute_paper_indices,
    fit_detectors,
    report_network_errors,
)
from suture.compare.estimates import has_same_examples, score_cells, stack_evaluation
from suture.compare.evaluate import Evaluator
from suture.compare.provenance import choose_display_names, describe_data, hash_inputs
from suture.compare.settings import FORWARD_DTYPES, Settings
from suture.data import Batch, Batches, is_same_batch, move_batch
from suture.indices import FOLDS, Value
from suture.networks import (
    SitedNetwork,
    SiteSpec,
    choose_micro_batch,
    disable_gradients,
    fold_batch_norms,
    pack_convolutions,
    prepare,
    take_first,
)
from suture.numbers import Estimate, Pair, frechet, get_measure, make_missing_estimate
from suture.ood import Detection, stack_scores, tabulate_scores
from suture.representations import PAPER_EXAMPLES, Accumulators, Alignment, Cell
from suture.results import Comparison, describe_marks
from suture.stitching import (
    Curves,
    GroupTrainer,
    StitchingLayer,
    Task,
    collect_own_layers,
    derive_cell_seed,
    direct_match,
    find_unconverged,
    make_training_batches,
    mark_rows,
    stack_curves,
)

OTHER_ORDER = ("the test data came in another order than in the pass before, or augmented at random, so "
               "cells could not be compared in pairs; give a test loader with shuffle=False")


@dataclass
class Run:
    """One comparison under way. Stages add rows, arrays and notes; `result` is what there is so far."""

    source: SitedNetwork
    target: SitedNetwork
    names: tuple[str, str]
    fit: Batches
    test: Batches
    settings: Settings
    micro_batch: int
    key: str
    fingerprints: tuple[str, str]
    whole: Batches
    origin: dict[str, dict[str, Any]] = field(default_factory=dict)
    detection: Detection | None = None
    training_batches: tuple[Batches, Batches | None] | None = None
    accumulators: Accumulators | None = None
    paper_batches: Batches | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    excluded: dict[Cell, str] = field(default_factory=dict)

    @classmethod
    def start(cls, source: nn.Module, target: nn.Module | None, data: Any, test: Any, settings: Settings, *,
              sites: SiteSpec = None, target_sites: SiteSpec = None, allow_bypass: bool = False,
              names: tuple[str, str] | None = None, batch_size: int = 256) -> Run:
        """Prepare both networks and look at the first batch (arguments as for `suture.compare`).

        Raises:
            SutureError: bad input.
        """
        if data is None:
            raise SutureError("expected data to compare the networks on, got none; pass a loader or "
                              "(inputs, labels)")
        how: dict[str, Any] = {"size": batch_size, "device": settings.device}
        whole = Batches(data, **how)
        fit = whole if settings.examples is None else Batches(data, most=settings.examples, **how)
        tested = Batches(data if test is None else test, name="data" if test is None else "test data", **how)
        fitting = (make_training_batches(data, settings.recipe, settings.device)
                   if "tlm" in settings.methods else None)
        same_network = target is None or target is source
        other = source if target is None else target
        first = move_batch(next(iter(fit)), settings.device)
        mine = prepare(source, take_first(first.source), settings.device, "source")
        yours = mine if same_network else prepare(other, take_first(first.target), settings.device, "target")
        shared = same_network and first.source is first.target and target_sites is None
        sited: dict[str, Any] = {"allow_bypass": allow_bypass, "autocast": FORWARD_DTYPES[settings.forward]}
        a = SitedNetwork(mine, first.source, sites, name="source", **sited)
        b = a if shared else SitedNetwork(yours, first.target, sites if target_sites is None
                                          else target_sites, name="target", **sited)
        keep = {s.path for s in (*a.sites, *b.sites)}
        for network, inputs in {mine: first.source, yours: first.target}.items():
            fold_batch_norms(network, take_first(inputs), keep)
            pack_convolutions(network, take_first(inputs))
        micro = choose_micro_batch(max(a.peak, b.peak), settings.device)
        settings = settings.replace_task(b, first)
        if settings.token_rate < 1:
            check_share(a, b)
        prints = (fingerprint_network(source), fingerprint_network(other))
        origin = {name: found for name, d in (("fit", data), ("test", test)) if (found := describe_data(d))}
        key = hash_inputs((prints, type(source).__qualname__, type(other).__qualname__, a.infos, b.infos,
                          settings.as_record(), origin), fit, tested, *settings.open_auxiliary())
        detection = (Detection(settings.ood, b, settings.device, micro, settings.seed, prints[1], data)
                     if settings.ood else None)
        planned = Accumulators(a.shapes, b.shapes, settings.accumulator_settings, settings.alignment,
                               same=a is b).nbytes_planned
        check_free_memory(planned, settings.device, "the sums of all cells",
                          "give fewer sites, jackknife=0, or indices of one alignment at a time")
        run = cls(a, b, names or choose_display_names(source, other, same_network), fit, tested, settings,
                  micro, key, prints, whole, origin, detection, fitting)
        if any(r.alignment == "paper" for r in settings.indices):
            run.paper_batches = Batches(data if test is None else test, name="test data",
                                        most=PAPER_EXAMPLES, **how)
        if settings.methods:
            run._look_ahead(first)
        for i, j in run.cells if settings.methods else ():
            try:
                settings.family.check(a.shapes[i].width, b.shapes[j].width)
            except SutureError as e:
                run.excluded[i, j] = str(e)
        if run.excluded and len(run.excluded) == len(run.cells):
            raise SutureError(next(iter(run.excluded.values())))
        return run

    def _look_ahead(self, first: Batch) -> None:
        """Try on the first examples what comes late, so that a long run does not end with bad input."""
        if self.detection is not None:
            self.detection.check_task(self.task)
            self.detection.check_user_inputs(Batch(take_first(first.source), take_first(first.target), None))
        batch, again = (move_batch(next(iter(self.test)), self.settings.device) for _ in range(2))
        if len(self.settings.methods) > 1 and not is_same_batch(batch, again):
            raise SutureError(OTHER_ORDER)
        with disable_gradients(), report_network_errors(self.test.name, RuntimeError, IndexError):
            self.source.front(take_first(batch.source))
            output = self.target.run_full(take_first(batch.target)).output
        if self.task is not Task.NONE:
            self.task.check_labels(self.task.find_rows(batch.target, batch.labels),
                                   self.task.extract_logits(output))

    @property
    def task(self) -> Task:
        """What the target network's output is."""
        return Task(self.settings.task)

    @property
    def cells(self) -> list[Cell]:
        return list(product(range(len(self.source.sites)), range(len(self.target.sites))))

    def list_stages(self) -> list[tuple[str, Callable[[], None]]]:
        """Names and work, in order. Direct matching needs only what the moments leave behind."""
        work: list[tuple[str, Callable[[], None]]] = [("moments", self.run_moments)]
        if "dm" in self.settings.methods:
            work.append(("dm", lambda: self.evaluate("dm", self.excluded)))
        if "tlm" in self.settings.methods:
            work.append(("tlm", self.match_task_loss))
        return work

    # -- stages ----------------------------------------------------------------------------------------------

    def run_moments(self) -> None:
        """One pass for all cells; indices, direct matching and training-free detectors from it."""
        published = self._run_paper_indices()  # first, because it may refuse what the long pass would not
        grid = self._ensure_accumulators()
        short: list[tuple[int, int, int]] = []
        constant: dict[int, None] = {}
        values = grid.compute_all_values(self.cells, self.settings.progress) if self.settings.indices else {}
        for i, j in self.cells:
            rows = grid.count_rows(i, j)
            for name, v in (values.get((i, j), {}) | published.get((i, j), {})).items():
                n = rows.get(name, self.counts.get("n_paper", 0))
                self._add_row(i, j, name, Estimate(v.value, v.low, v.high, v.reason), n)
            if not grid.has_stitch:
                continue
            pair = grid.stitch.get_pair(i, j)
            if pair.x.rank + pair.y.rank >= pair.moments.n:
                short.append((pair.moments.n, i, j))
            if pair.x.rank == 0:
                constant[i] = None
            if self.settings.methods and (i, j) not in self.excluded:
                self._match_cell(i, j, pair, grid)
        self.counts["n_fit"] = grid.examples
        self._describe_sites(grid)
        self._note_rows(list(constant), short)
        if self.detection is not None:
            self.arrays |= self.detection.stack_auxiliary_scores()
            self.notes += self.detection.notes

    def _run_paper_indices(self) -> dict[Cell, dict[str, Value]]:
        """Indices of the alignment ``paper``."""
        if self.paper_batches is None:
            return {}
        found, self.counts["n_paper"] = compute_paper_indices(
            self.source, self.target, self.paper_batches, self.settings.accumulator_settings,
            device=self.settings.device, micro_batch=self.micro_batch, progress=self.settings.progress)
        return found

    def _describe_sites(self, accumulators: Accumulators) -> None:
        """Spectra of the sites, from which their statistics follow."""
        for side, network in (("source", self.source), ("target", self.target)):
            for k in range(len(network.sites)) if self.settings.indices and accumulators.has_stitch else ():
                found = accumulators.compute_statistics(side, k)
                self.arrays[f"{side}.spectrum/{k}"] = found.spectrum.cpu().numpy()
                self.arrays[f"{side}.rows/{k}"] = np.array([found.n, found.width, found.dead], dtype=np.int64)

    def _ensure_accumulators(self) -> Accumulators:
        """The moments, and the detectors made; a run that was taken over does that pass again."""
        if self.accumulators is None:
            fitting = self.detection.make_fitter() if self.detection is not None else None
            a, b, plan = self.source, self.target, self.settings
            grid = Accumulators(a.shapes, b.shapes, plan.accumulator_settings, plan.alignment, same=a is b)
            collect_moments(a, b, self.fit, grid, device=plan.device, micro_batch=self.micro_batch,
                         fitter=fitting if self.fit is self.whole else None, progress=plan.progress,
                         share=TokenShare(plan.token_rate, plan.seed) if plan.token_rate < 1 else None)
            self.accumulators = grid
            if self.detection is not None and fitting is not None:
                if self.fit is not self.whole and fitting.needed:
                    fit_detectors(b, self.whole, fitting, plan.device, self.micro_batch)
                self.detection.finish(fitting, self.whole, self.settings.progress)
        return self.accumulators

    def _match_cell(self, i: int, j: int, pair: Pair, accumulators: Accumulators) -> None:
        try:
            match = direct_match(pair, self.settings.family,
                                 accumulators.stitch.get_folds(i, j, FOLDS)
                                 if self.settings.folds > 1 else None)
        except SutureError as e:  # a sparse map that is not found in the allowed steps
            self.excluded[i, j] = str(e)
            return
        if accumulators.stitch.alignments[i, j].learns_prefix:
            self.arrays[f"dm.prefix/{i}/{j}"] = accumulators.stitch.get_prefix_mean(j).cpu().numpy()
        self.arrays[f"dm.weight/{i}/{j}"] = match.weight.cpu().numpy()
        self.arrays[f"dm.bias/{i}/{j}"] = match.bias.cpu().numpy()
        shape = (len(self.source.sites), len(self.target.sites))
        for name, value in (("rank", match.rank), ("condition", match.condition),
                            ("fit_residual", match.residual)):
            self.arrays.setdefault(f"dm.{name}", np.full(shape, np.nan))[i, j] = value

    def _note_rows(self, constant: list[int], short: list[tuple[int, int, int]]) -> None:
        if constant:
            names = ", ".join(str(self.source.sites[i]) for i in constant)
            self.notes.append(f"constant representation at {names}: similarities are "
                              "missing there, and direct matching predicts the target's mean")
        if short:
            n, i, j = min(short)
            self.notes.append(f"{n} rows are too few for {len(short)} of {len(self.cells)} cells, such as "
                              f"{self.source.sites[i]} into {self.target.sites[j]}: cca, pwcca or r2 are "
                              "missing, and direct matching is the solution of least norm where the source "
                              "has more features")

    def restore_layer(self, method: str, i: int, j: int) -> StitchingLayer:
        """The fitted layer of a cell, from the arrays."""
        alone = {k: torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"])
                 for k in ("weight", "bias", "prefix") if f"{method}.{k}/{i}/{j}" in self.arrays}
        return self.make_layer(i, j).set(**alone).to(self.settings.device)

    def make_layer(self, i: int, j: int) -> StitchingLayer:
        """A layer for a cell, not fitted."""
        return StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j],
                                        self.settings.alignment),
                              self.settings.family, relu=self.settings.relu)

    def train(self) -> tuple[Curves, dict[str, dict[Cell, float]]]:
        """Train the stitching layers of all cells by the recipe; learning curves, and objectives at the
        end."""
        assert self.training_batches is not None
        recipe, device = self.settings.recipe, self.settings.device
        layers = {c: self._initialise_layer(*c) for c in self.cells if c not in self.excluded}
        trainer = GroupTrainer(self.source, self.target, layers, recipe, self.micro_batch, self.task)
        with report_network_errors("data", IndexError):
            curves = trainer.fit(self.training_batches[0], device, self.settings.progress,
                                 self.training_batches[1])
        for (i, j), layer in layers.items():
            fitted = {"weight": layer.weight, "bias": layer.bias, "prefix": layer.prefix}
            self.arrays |= {f"tlm.{k}/{i}/{j}": v.detach().cpu().numpy() for k, v in fitted.items()
                            if v is not None}
        self.arrays |= stack_curves(curves, (len(self.source.sites), len(self.target.sites)), recipe.epochs)
        self.notes += curves.notes
        return curves, self._compute_objectives(trainer,
                                                {c: m for c, m in layers.items() if c not in curves.failed})

    def match_task_loss(self) -> None:
        """Train the stitching layers of all cells, evaluate them, mark what has not converged."""
        curves, ends = self.train()
        self.evaluate("tlm", self.excluded | curves.failed)
        own = collect_own_layers(self.rows) if self.source is self.target else {}
        sources, targets = ([str(s) for s in n.sites] for n in (self.source, self.target))
        found = find_unconverged(curves, self.settings.recipe, own=own, ends=ends.get("tlm"),
                                 matched=ends.get("dm"), targets=targets)
        mark_rows(self.rows, sources, targets, found)
        if found:
            trained = len(self.cells) - len(self.excluded | curves.failed)
            self.notes.append("task loss matching has not converged: "
                              f"{describe_marks(found.values(), trained)}; train longer before "
                              "reading the TLM map")

    def _initialise_layer(self, i: int, j: int) -> StitchingLayer:
        recipe = self.settings.recipe
        if recipe.init == "dm":
            return self.restore_layer("dm", i, j)
        layer = self.make_layer(i, j)
        seed = derive_cell_seed(recipe.seed, str(self.source.sites[i]), str(self.target.sites[j]))
        made = layer.init_identity() if recipe.init == "identity" else layer.init_random(seed)
        return made.to(self.settings.device)

    def _compute_objectives(self, trainer: GroupTrainer,
                            trained: dict[Cell, StitchingLayer]) -> dict[str, dict[Cell, float]]:
        """Objectives on the fitting data of the trained layers and direct matching's, where one says
        something.

        A single epoch is marked whatever it reached; under a penalty the trained layer need not be the better
        one.
        """
        assert self.training_batches is not None
        if (self.settings.recipe.epochs == 1 or self.settings.family.name in ("ridge", "sparse")
            or not trained):
            return {}
        kinds = {"tlm": trained, "dm": {c: self.restore_layer("dm", *c) for c in trained}}
        found = {name: trainer.compute_objective(self.training_batches[0], self.settings.device, layers,
                                                 self.settings.progress) for name, layers in kinds.items()}
        for name, values in found.items():
            array = np.full((len(self.source.sites), len(self.target.sites)), np.nan)
            for c, value in values.items():
                array[c] = value
            self.arrays[f"{name}.objective"] = array
        return found

    def evaluate(self, method: str, failed: dict[Cell, str]) -> None:
        """Run every network stitched by `method` over the test data; `failed` says why a cell has no
        layer."""
        layers = {c: self.restore_layer(method, *c) for c in self.cells if c not in failed}
        if self.detection is not None:
            self._ensure_accumulators()
        scoring = self.detection.make_collector() if self.detection is not None else None
        evaluator = Evaluator(self.source, self.target, layers, self.micro_batch, scoring, self.task)
        with report_network_errors(self.test.name, IndexError):
            found = evaluator.run(self.test, self.settings.device, self.settings.progress,
                                  f"evaluating {method}")
        shape = (len(self.source.sites), len(self.target.sites))
        arrays = stack_evaluation(found, method, shape)
        if not has_same_examples(self.arrays, arrays):
            raise SutureError(OTHER_ORDER)
        self.arrays |= arrays
        for scored in score_cells(found, arrays, method, shape, self.settings.seed, failed):
            self._add_row(*scored)
        self.counts["n_test"] = found.examples
        if scoring is not None and self.detection is not None:
            self._add_distances(method, self._ensure_accumulators(), failed)
            scored_arrays = stack_scores(scoring, method, shape, self.settings.seed)
            self.arrays |= scored_arrays
            self.detection.describe_quality(scored_arrays, scoring)
            for scored in tabulate_scores(arrays | scored_arrays, method, shape, self.detection.ood.names,
                                          self.settings.seed, failed):
                self._add_row(*scored)

    def _add_distances(self, method: str, accumulators: Accumulators, failed: dict[Cell, str]) -> None:
        """Frechet distances of stitched from native representations, from the moments."""
        for i, j in self.cells:
            reason = (failed.get((i, j))
                      or ("there is no closed form behind a ReLU" if self.settings.relu else ""))
            pair, parts = accumulators.stitch.get_pair(i, j), None
            if not reason:
                weight, bias = (torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"])
                                for k in ("weight", "bias"))
                parts = frechet(weight, bias, pair)
            for part in ("total", "shift", "shrinkage", "rotation"):
                e = make_missing_estimate(reason) if parts is None else getattr(parts, part)
                name = f"{method}.frechet" + ("" if part == "total" else f"_{part}")
                self._add_row(i, j, name, e, pair.moments.n)

    def _add_row(self, i: int, j: int, name: str, e: Estimate, n: int) -> None:
        self.rows.append({"source": str(self.source.sites[i]), "target": str(self.target.sites[j]),
                          "measure": name, "value": e.value, "low": e.low, "high": e.high, "n": n,
                          "direction": get_measure(name).direction, "reason": e.reason, "mark": ""})

    # -- results ---------------------------------------------------------------------------------------------

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
        self.notes = [n for n in previous.meta["notes"] if n not in self._list_standing_notes()]
        self.done = list(previous.meta["stages"])
        self.excluded = {(int(i), int(j)): why for i, j, why in previous.meta["excluded"]}
        if self.detection is not None:
            self.detection.about = previous.meta.get("ood", {})
        self.counts = {k: previous.meta[k] for k in ("n_fit", "n_test") if previous.meta.get(k) is not None}

    def _list_standing_notes(self) -> list[str]:
        return [*list_standing_notes(self.settings, self.source, self.target),
                *dict.fromkeys(d["note"] for d in self.origin.values() if d["note"])]

    def make_result(self) -> Comparison:
        """The comparison as far as it is."""
        meta = {
            "key": self.key, "stages": list(self.done), "settings": self.settings.as_record(),
            "seed": self.settings.seed, "n_fit": self.counts.get("n_fit"),
            "n_test": self.counts.get("n_test"), "target_accuracy": compute_target_accuracy(self.arrays),
            "shapes": {"source": [str(s) for s in self.source.shapes],
                       "target": [str(s) for s in self.target.shapes]},
            "fingerprints": list(self.fingerprints), "device": str(self.settings.device), "micro_batch":
            self.micro_batch, "excluded": [[i, j, why] for (i, j), why in self.excluded.items()],
            "notes": [*self._list_standing_notes(), *self.notes], "data": self.origin,
        }
        if self.detection is not None and self.detection.about:
            meta["ood"] = self.detection.about
        return assemble(self.names, self.source, self.target, self.fingerprints, self.rows, self.arrays, meta)
