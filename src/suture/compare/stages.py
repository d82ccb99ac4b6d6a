"""One comparison under way: the stages that compute it, what they leave behind, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from suture._base.errors import SutureError
from suture._base.hashing import fingerprint
from suture._base.memory import refuse_beyond
from suture.compare.assembly import assemble, standing_notes, target_accuracy
from suture.compare.collect import TokenShare, check_share, detectors_pass, moments_pass, paper_values, told
from suture.compare.evaluate import Evaluator
from suture.compare.provenance import content_of, describe, display_names
from suture.compare.scored import arrays_of, same_examples, scores_of
from suture.compare.settings import FORWARDS, Plan
from suture.data.batches import Batch, Batches, on_device, same_batch
from suture.indices import Value
from suture.indices.regression import FOLDS
from suture.networks.calls import no_gradients
from suture.networks.naming import SiteSpec
from suture.networks.prepare import few, fold, micro_batch, pack, prepare
from suture.networks.sites import SitedNetwork
from suture.numbers import intervals as scores
from suture.numbers.frechet import frechet
from suture.numbers.measures import measure
from suture.numbers.spectra import Pair
from suture.ood.detection import Detection
from suture.ood.detectors.scoring import score_arrays, score_rows
from suture.representations.accumulators import PAPER_EXAMPLES, Gathering
from suture.representations.alignment import Alignment
from suture.results.comparison import Comparison
from suture.results.convergence_marks import marked_words
from suture.stitching import StitchingLayer, convergence, direct_match
from suture.stitching.outputs import Task
from suture.stitching.task import Cell, Curves, GroupTrainer, cell_seed, fitting_data

OTHER_ORDER = ("the test data came in another order than in the pass before, or augmented at random, so cells could "
               "not be compared in pairs; give a test loader with shuffle=False")


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
    origin: dict[str, dict[str, Any]] = field(default_factory=dict)
    detection: Detection | None = None
    fitting: tuple[Batches, Batches | None] | None = None
    grid: Gathering | None = None
    published: Batches | None = None
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
        how: dict[str, Any] = {"size": batch_size, "device": plan.device}
        whole = Batches(data, **how)
        fit = whole if plan.examples is None else Batches(data, most=plan.examples, **how)
        tested = Batches(data if test is None else test, name="data" if test is None else "test data", **how)
        fitting = fitting_data(data, plan.recipe, plan.device) if "tlm" in plan.methods else None
        same_network = target is None or target is source
        other = source if target is None else target
        first = on_device(next(iter(fit)), plan.device)
        mine = prepare(source, few(first.source), plan.device, "source")
        yours = mine if same_network else prepare(other, few(first.target), plan.device, "target")
        shared = same_network and first.source is first.target and target_sites is None
        sited: dict[str, Any] = {"allow_bypass": allow_bypass, "autocast": FORWARDS[plan.forward]}
        a = SitedNetwork(mine, first.source, sites, name="source", **sited)
        b = a if shared else SitedNetwork(yours, first.target, sites if target_sites is None else target_sites,
                                          name="target", **sited)
        keep = {s.path for s in (*a.sites, *b.sites)}
        for network, inputs in {mine: first.source, yours: first.target}.items():
            fold(network, few(inputs), keep)
            pack(network, few(inputs))
        micro = micro_batch(max(a.peak, b.peak), plan.device)
        plan = plan.for_task(b, first)
        if plan.token_rate < 1:
            check_share(a, b)
        prints = (fingerprint(source), fingerprint(other))
        origin = {name: found for name, d in (("fit", data), ("test", test)) if (found := describe(d))}
        key = content_of((prints, type(source).__qualname__, type(other).__qualname__, a.infos, b.infos,
                          plan.settings(), origin), fit, tested, *plan.outside())
        detection = Detection(plan.ood, b, plan.device, micro, plan.seed, prints[1], data) if plan.ood else None
        planned = Gathering(a.shapes, b.shapes, plan.wanted, plan.alignment, same=a is b).nbytes_planned
        refuse_beyond(planned, plan.device, "the sums of all cells", "give fewer sites, jackknife=0, or indices of one "
                      "alignment at a time")
        run = cls(a, b, names or display_names(source, other, same_network), fit, tested, plan, micro, key, prints,
                  whole, origin, detection, fitting)
        if any(r.alignment == "paper" for r in plan.indices):
            run.published = Batches(data if test is None else test, name="test data", most=PAPER_EXAMPLES, **how)
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
            self.detection.check_task(self.task)
            self.detection.rehearse(Batch(few(first.source), few(first.target), None))
        batch, again = (on_device(next(iter(self.test)), self.plan.device) for _ in range(2))
        if len(self.plan.methods) > 1 and not same_batch(batch, again):
            raise SutureError(OTHER_ORDER)
        with no_gradients(), told(self.test.name, RuntimeError, IndexError):
            self.source.front(few(batch.source))
            output = self.target.full(few(batch.target)).output
        if self.task is not Task.NONE:
            self.task.check(self.task.rows(batch.target, batch.labels), self.task.logits_of(output))

    @property
    def task(self) -> Task:
        """What the target network's output is."""
        return Task(self.plan.task)

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
        published = self._published()  # first, because it may refuse what the long pass would not
        grid = self._ready()
        short: list[tuple[int, int, int]] = []
        constant: dict[int, None] = {}
        values = grid.all_values(self.cells, self.plan.progress) if self.plan.indices else {}
        for i, j in self.cells:
            rows = grid.rows(i, j)
            for name, v in (values.get((i, j), {}) | published.get((i, j), {})).items():
                n = rows.get(name, self.counts.get("n_paper", 0))
                self._row(i, j, name, scores.Estimate(v.value, v.low, v.high, v.reason), n)
            if not grid.has_stitch:
                continue
            pair = grid.stitch.pair(i, j)
            if pair.x.rank + pair.y.rank >= pair.moments.n:
                short.append((pair.moments.n, i, j))
            if pair.x.rank == 0:
                constant[i] = None
            if self.plan.methods and (i, j) not in self.excluded:
                self._match(i, j, pair, grid)
        self.counts["n_fit"] = grid.examples
        self._describe_sites(grid)
        self._note_rows(list(constant), short)
        if self.detection is not None:
            self.arrays |= self.detection.arrays()
            self.notes += self.detection.notes

    def _published(self) -> dict[Cell, dict[str, Value]]:
        """Indices of the alignment ``paper``."""
        if self.published is None:
            return {}
        found, self.counts["n_paper"] = paper_values(self.source, self.target, self.published, self.plan.wanted,
                                                     device=self.plan.device, micro=self.micro,
                                                     progress=self.plan.progress)
        return found

    def _describe_sites(self, grid: Gathering) -> None:
        """Spectra of the sites, from which their statistics follow."""
        for side, network in (("source", self.source), ("target", self.target)):
            for k in range(len(network.sites)) if self.plan.indices and grid.has_stitch else ():
                found = grid.statistics(side, k)
                self.arrays[f"{side}.spectrum/{k}"] = found.spectrum.cpu().numpy()
                self.arrays[f"{side}.rows/{k}"] = np.array([found.n, found.width, found.dead], dtype=np.int64)

    def _ready(self) -> Gathering:
        """The moments, and the detectors made; a run that was taken over does that pass again."""
        if self.grid is None:
            fitting = self.detection.fitting() if self.detection is not None else None
            a, b, plan = self.source, self.target, self.plan
            grid = Gathering(a.shapes, b.shapes, plan.wanted, plan.alignment, same=a is b)
            moments_pass(a, b, self.fit, grid, device=plan.device, micro=self.micro,
                         fitting=fitting if self.fit is self.whole else None, progress=plan.progress,
                         share=TokenShare(plan.token_rate, plan.seed) if plan.token_rate < 1 else None)
            self.grid = grid
            if self.detection is not None and fitting is not None:
                if self.fit is not self.whole and fitting.needed:
                    detectors_pass(b, self.whole, fitting, plan.device, self.micro)
                self.detection.finish(fitting, self.whole, self.plan.progress)
        return self.grid

    def _match(self, i: int, j: int, pair: Pair, grid: Gathering) -> None:
        try:
            match = direct_match(pair, self.plan.family,
                                 grid.stitch.folds(i, j, FOLDS) if self.plan.folds > 1 else None)
        except SutureError as e:  # a sparse map that is not found in the allowed steps
            self.excluded[i, j] = str(e)
            return
        if grid.stitch.alignments[i, j].learns_prefix:
            self.arrays[f"dm.prefix/{i}/{j}"] = grid.stitch.prefix(j).cpu().numpy()
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
        trainer = GroupTrainer(self.source, self.target, layers, recipe, self.micro, self.task)
        with told("data", IndexError):
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
        evaluator = Evaluator(self.source, self.target, layers, self.micro, scoring, self.task)
        with told(self.test.name, IndexError):
            found = evaluator.run(self.test, self.plan.device, self.plan.progress, f"evaluating {method}")
        shape = (len(self.source.sites), len(self.target.sites))
        arrays = arrays_of(found, method, shape)
        if not same_examples(self.arrays, arrays):
            raise SutureError(OTHER_ORDER)
        self.arrays |= arrays
        for scored in scores_of(found, arrays, method, shape, self.plan.seed, failed):
            self._row(*scored)
        self.counts["n_test"] = found.examples
        if scoring is not None and self.detection is not None:
            self._distances(method, self._ready(), failed)
            scored_arrays = score_arrays(scoring, method, shape, self.plan.seed)
            self.arrays |= scored_arrays
            self.detection.judge(scored_arrays, scoring)
            for scored in score_rows(arrays | scored_arrays, method, shape, self.detection.ood.names, self.plan.seed,
                                     failed):
                self._row(*scored)

    def _distances(self, method: str, grid: Gathering, failed: dict[Cell, str]) -> None:
        """Frechet distances of stitched from native representations, from the moments."""
        for i, j in self.cells:
            reason = failed.get((i, j)) or ("there is no closed form behind a ReLU" if self.plan.relu else "")
            pair, parts = grid.stitch.pair(i, j), None
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
        return [*standing_notes(self.plan, self.source, self.target),
                *dict.fromkeys(d["note"] for d in self.origin.values() if d["note"])]

    def result(self) -> Comparison:
        """The comparison as far as it is."""
        meta = {
            "key": self.key, "stages": list(self.done), "settings": self.plan.settings(), "seed": self.plan.seed,
            "n_fit": self.counts.get("n_fit"), "n_test": self.counts.get("n_test"),
            "target_accuracy": target_accuracy(self.arrays),
            "shapes": {"source": [str(s) for s in self.source.shapes], "target": [str(s) for s in self.target.shapes]},
            "fingerprints": list(self.prints), "device": str(self.plan.device), "micro_batch": self.micro,
            "excluded": [[i, j, why] for (i, j), why in self.excluded.items()],
            "notes": [*self._standing_notes(), *self.notes], "data": self.origin,
        }
        if self.detection is not None and self.detection.about:
            meta["ood"] = self.detection.about
        return assemble(self.names, self.source, self.target, self.prints, self.rows, self.arrays, meta)
