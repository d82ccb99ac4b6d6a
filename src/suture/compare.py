"""Compare two networks layer by layer: one call from networks and data to a `Comparison`."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

import suture.indices as index_table
from suture import scores
from suture._errors import SutureError, first_line, unknown
from suture.batches import Batches, Progress, convert, on_device, pieces, tensors
from suture.calls import no_gradients
from suture.fingerprints import fingerprint
from suture.measures import MEASURES, measure
from suture.moments import GridMoments, NonFiniteError
from suture.prepare import few, find_device, micro_batch, prepare
from suture.representations import Alignment, to_grid
from suture.results import COLUMNS, Comparison
from suture.sites import SitedNetwork, SiteSpec
from suture.spectra import Pair, Spectrum
from suture.stitching import DirectMatch, StitchingLayer, TaskRecipe, direct_match
from suture.stitching.evaluate import Evaluation, Evaluator
from suture.stitching.task import Cell, Curves, GroupTrainer, cell_seed

METHODS = ("dm", "tlm")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def compare(source: nn.Module, target: nn.Module | None = None, data: Any = None, test: Any = None, *,
            sites: SiteSpec = None, target_sites: SiteSpec = None,
            methods: Sequence[str] = METHODS, indices: Iterable[str] | str = "all",
            tlm: TaskRecipe | None = None, precision: Literal["float32", "float64"] = "float32",
            allow_bypass: bool = False, names: tuple[str, str] | None = None, device: str | torch.device = "auto",
            batch_size: int = 256, seed: int = 0, progress: Progress | None = None,
            on_stage: Callable[[Comparison], object] | None = None, previous: Comparison | None = None) -> Comparison:
    """How similar is each layer of `source` to each layer of `target`?

    One pass over `data` gives the moments of all cells, and from them every index and every direct-matching layer.
    Task loss matching trains on `data`. Stitched networks are evaluated on `test`.

    Args:
        source: the network that gives the fronts. It is not changed: a private frozen copy runs, in eval mode.
        target: the network that gives the tails. None: stitch `source` to itself.
        data: what stitching layers and indices are computed on: a DataLoader or re-iterable of (inputs, labels), a
            Dataset, tensors (inputs, labels), or `Paired` loaders where the networks want different inputs.
        test: what stitched networks are evaluated on. None: `data` again, and the result says so.
        sites: sites of the source, and of the target unless given: names, globs, a function of (path, module).
            Default: the repeated blocks in order of execution.
        target_sites: sites of the target where they differ.
        methods: which stitching: "dm" (direct matching), "tlm" (task loss matching). ``()`` for indices alone.
        indices: names of structural indices, or "all". ``()`` for none.
        tlm: recipe of task loss matching. Default: `TaskRecipe` with `seed`, which is the paper's.
        precision: of the products behind the moments. float64 costs three times as much (see `GridMoments`).
        allow_bypass: accept sites that another path of the network bypasses (see `SitedNetwork`).
        names: how tables call the two networks. Default: their classes.
        device: "auto" (cuda, else mps, else cpu) or a torch device.
        batch_size: for data that are no loader.
        seed: of initialisations, data order and bootstraps.
        progress: called as ``progress(stage, done, total)``.
        on_stage: called with the result so far after each stage, so that it can be kept.
        previous: an earlier, perhaps partial result of the very same comparison; its finished stages are taken over.

    Returns:
        The `Comparison`: table, matrices, plots, verdict, report.

    Raises:
        SutureError: bad input; one line that says what was expected, what came and what to write instead.
    """
    chosen = [methods] if isinstance(methods, str) else list(methods or ())
    for m in chosen:
        if m not in METHODS:
            raise unknown("method", m, METHODS)
    _check_options(data, precision, seed, names)
    recipe = tlm or TaskRecipe(seed=seed)
    fit = Batches(data, size=batch_size)
    plan = _Plan(chosen, [i.measure.name for i in index_table.chosen(indices)], recipe, precision, seed,
                 find_device(device), progress, test is not None)
    run = _Run.start(source, target, fit, Batches(test, size=batch_size, name="test data") if test is not None else fit,
                     sites, target_sites, allow_bypass, names, plan)
    run.tlm_batches = Batches(data, size=recipe.batch_size, shuffle=True, seed=recipe.seed)
    if previous is not None:
        run.take_over(previous)
    result = None
    for stage, work in run.stages():
        if stage not in run.done:
            work()
            run.done.append(stage)
            result = run.result()
            if on_stage:
                on_stage(result)
    return run.result() if result is None else result


def _check_options(data: Any, precision: str, seed: int, names: tuple[str, str] | None) -> None:
    if precision not in PRECISIONS:
        raise SutureError(f"expected precision to be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if names is not None and len(names) != 2:
        raise SutureError(f"expected two names, of source and target, got {len(names)}")
    if seed < 0:
        raise SutureError(f"expected a seed of at least 0, got {seed}")
    if data is None:
        raise SutureError("expected data to compare the networks on, got none; pass a loader or (inputs, labels)")


@dataclass(frozen=True)
class _Plan:
    methods: list[str]
    indices: list[str]
    recipe: TaskRecipe
    precision: str
    seed: int
    device: torch.device
    progress: Progress | None
    held_out: bool

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, for the record and for taking over earlier work."""
        return {"methods": self.methods, "indices": self.indices, "tlm": asdict(self.recipe),
                "precision": self.precision, "seed": self.seed, "held_out": self.held_out}


@dataclass
class _Run:
    """One comparison under way. Stages add rows, arrays and notes; `result` is what there is so far."""

    source: SitedNetwork
    target: SitedNetwork
    names: tuple[str, str]
    fit: Batches
    test: Batches
    plan: _Plan
    micro: int
    key: str
    prints: tuple[str, str]
    tlm_batches: Batches | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def start(cls, source: nn.Module, target: nn.Module | None, fit: Batches, test: Batches, sites: SiteSpec,
              target_sites: SiteSpec, allow_bypass: bool, names: tuple[str, str] | None, plan: _Plan) -> _Run:
        same_network = target is None or target is source
        other = source if target is None else target
        first = on_device(next(iter(fit)), plan.device)
        mine = prepare(source, few(first.source), plan.device, "source")
        yours = mine if same_network else prepare(other, few(first.target), plan.device, "target")
        shared = same_network and first.source is first.target and target_sites is None
        a = SitedNetwork(mine, first.source, sites, allow_bypass=allow_bypass, name="source")
        b = a if shared else SitedNetwork(yours, first.target, sites if target_sites is None else target_sites,
                                          allow_bypass=allow_bypass, name="target")
        micro = min(micro_batch(mine, first.source, plan.device), micro_batch(yours, first.target, plan.device))
        prints = (fingerprint(source), fingerprint(other))
        key = _key(prints, (type(source).__qualname__, type(other).__qualname__), a, b, plan, fit, test)
        return cls(a, b, names or _names(source, other, same_network), fit, test, plan, micro, key, prints)

    @property
    def cells(self) -> list[Cell]:
        return list(product(range(len(self.source.sites)), range(len(self.target.sites))))

    def stages(self) -> list[tuple[str, Callable[[], None]]]:
        """Names and work, in order. Direct matching needs only what the moments leave behind."""
        work: list[tuple[str, Callable[[], None]]] = [("moments", self.moments)]
        if "dm" in self.plan.methods:
            work.append(("dm", lambda: self.evaluate("dm")))
        if "tlm" in self.plan.methods:
            work.append(("tlm", self.task_loss))
        return work

    # -- stages --------------------------------------------------------------------------------------------------

    def moments(self) -> None:
        """One pass for all cells; indices and direct matching from it."""
        grid = self._moments_pass()
        same = self.source is self.target
        spectra_x: dict[tuple[int, Any], Spectrum] = {}
        spectra_y = [Spectrum.of(grid.cell(0, j).y, grid.precision) for j in range(len(self.target.sites))]
        short: list[tuple[int, int, int]] = []
        for i, j in self.cells:
            m = grid.cell(i, j)
            key = (i, self.target.shapes[j].grid)
            if key not in spectra_x:
                own = same and self.source.shapes[i].grid == key[1]
                spectra_x[key] = spectra_y[i] if own else Spectrum.of(m.x, m.precision)
            pair = Pair(m, spectra_x[key], spectra_y[j])
            if pair.x.rank + pair.y.rank >= m.n:
                short.append((m.n, i, j))
            for name in self.plan.indices:
                value = index_table.INDICES[name](pair)
                self._row(i, j, name, scores.Estimate(value.value, reason=value.reason), m.n)
            self._keep_match(i, j, direct_match(pair))
        self.counts["n_fit"] = grid.examples
        self._note_rows(spectra_x, short)

    def _moments_pass(self) -> GridMoments:
        a, b = self.source, self.target
        resampling = {}
        for x, y in product(a.shapes, b.shapes):
            resampling[x.grid, y.grid] = Alignment(x, y).resampling
        precision = PRECISIONS[self.plan.precision]
        grid = GridMoments([s.grid for s in a.shapes], [s.width for s in a.shapes],
                           [s.grid for s in b.shapes], [s.width for s in b.shapes], resampling, same=a is b,
                           precision=precision, higher="cka_debiased" in self.plan.indices)
        with no_gradients():
            for k, batch in enumerate(self.fit):
                for piece in pieces(on_device(batch, self.plan.device), self.micro):
                    try:
                        xs = [to_grid(x) for x in a.front(piece.source)]
                        ys = xs if a is b else [to_grid(y) for y in b.front(piece.target)]
                        grid.update(xs, ys)
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

    def _keep_match(self, i: int, j: int, match: DirectMatch) -> None:
        self.arrays[f"dm.weight/{i}/{j}"] = match.weight.cpu().numpy()
        self.arrays[f"dm.bias/{i}/{j}"] = match.bias.cpu().numpy()
        shape = (len(self.source.sites), len(self.target.sites))
        for name, value in (("rank", match.rank), ("condition", match.condition), ("fit_residual", match.residual)):
            self.arrays.setdefault(f"dm.{name}", np.full(shape, np.nan))[i, j] = value

    def _note_rows(self, spectra: dict[tuple[int, Any], Spectrum], short: list[tuple[int, int, int]]) -> None:
        constant = [str(self.source.sites[i]) for (i, _), s in spectra.items() if s.rank == 0]
        if constant:
            self.notes.append(f"constant representation at {', '.join(dict.fromkeys(constant))}: similarities are "
                              "missing there, and direct matching predicts the target's mean")
        if short:
            n, i, j = min(short)
            self.notes.append(f"{n} rows are too few for {len(short)} of {len(self.cells)} cells, such as "
                              f"{self.source.sites[i]} into {self.target.sites[j]}: cca, pwcca or r2 are missing, "
                              "and direct matching is the solution of least norm where the source has more features")

    def layer(self, method: str, i: int, j: int) -> StitchingLayer:
        """The fitted layer of a cell, from the arrays."""
        layer = StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j])).to(self.plan.device)
        weight, bias = (torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias"))
        return layer.set(weight.float(), bias.float())

    def task_loss(self) -> None:
        """Train the stitching layers of all cells on the task loss, then evaluate them."""
        recipe = self.plan.recipe
        layers: dict[Cell, StitchingLayer] = {}
        for i, j in self.cells:
            if recipe.init == "dm":
                layers[i, j] = self.layer("dm", i, j)
                continue
            layer = StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j]))
            names = str(self.source.sites[i]), str(self.target.sites[j])
            made = layer.init_identity() if recipe.init == "identity" else layer.init_random(
                cell_seed(recipe.seed, *names))
            layers[i, j] = made.to(self.plan.device)
        assert self.tlm_batches is not None
        curves = GroupTrainer(self.source, self.target, layers, recipe, self.micro).fit(
            self.tlm_batches, self.plan.device, self.plan.progress)
        for (i, j), layer in layers.items():
            self.arrays[f"tlm.weight/{i}/{j}"] = layer.weight.detach().cpu().numpy()
            self.arrays[f"tlm.bias/{i}/{j}"] = layer.bias.detach().cpu().numpy()
        self._keep_curves(curves)
        self.evaluate("tlm", curves.failed)
        self._note_convergence()

    def _keep_curves(self, curves: Curves) -> None:
        shape = (len(self.source.sites), len(self.target.sites), self.plan.recipe.epochs)
        for name, of in (("loss", curves.loss), ("train_accuracy", curves.accuracy)):
            array = np.full(shape, np.nan, dtype=np.float32)
            for (i, j), values in of.items():
                array[i, j] = values
            self.arrays[f"tlm.{name}"] = array

    def _note_convergence(self) -> None:
        """The own-layer cell, where the identity gives 1, is the yardstick of whether training got anywhere."""
        if self.source is not self.target:
            return
        own = [r["value"] for r in self.rows if r["measure"] == "tlm.relative_accuracy" and r["source"] == r["target"]
               and not r["reason"]]
        if own and min(own) < 0.98:
            self.notes.append(f"task loss matching has not converged: own-layer cells reach only {min(own):.3f} "
                              "relative accuracy, where the identity gives 1; train longer before reading the TLM map")

    def evaluate(self, method: str, failed: dict[Cell, str] | None = None) -> None:
        """Run every network stitched by `method` over the test data."""
        layers = {c: self.layer(method, *c) for c in self.cells if c not in (failed or {})}
        found = Evaluator(self.source, self.target, layers, self.micro).run(
            self.test, self.plan.device, self.plan.progress, f"evaluating {method}")
        self._rows_of(method, found, failed or {})
        self.counts["n_test"] = len(found.own)

    def _rows_of(self, method: str, found: Evaluation, failed: dict[Cell, str]) -> None:
        n, seed = len(found.own), self.plan.seed
        shape = (len(self.source.sites), len(self.target.sites), n)
        own = None if found.labels is None else found.own == found.labels
        arrays = {"correct": np.zeros(shape, bool), "agree": np.zeros(shape, bool)}
        for i, j in self.cells:
            names = ("accuracy", "relative_accuracy", "agreement", "residual")
            if (i, j) in failed:
                estimates = {k: scores.missing(failed[i, j]) for k in names}
            else:
                predicted = found.predicted[i, j]
                arrays["agree"][i, j] = predicted == found.own
                estimates = {"agreement": scores.proportion(arrays["agree"][i, j]),
                             "residual": scores.ratio_of_sums(found.error[i, j], found.scale[j], seed)}
                if own is None:
                    estimates |= {k: scores.missing("the test data have no labels") for k in names[:2]}
                else:
                    arrays["correct"][i, j] = predicted == found.labels
                    estimates["accuracy"] = scores.proportion(arrays["correct"][i, j])
                    estimates["relative_accuracy"] = scores.ratio_of_hits(arrays["correct"][i, j], own, seed)
            for k in names:
                self._row(i, j, f"{method}.{k}", estimates[k], n)
        self.arrays[f"{method}.agree"] = arrays["agree"]
        if own is not None:
            earlier = self.arrays.get("target.correct")
            if earlier is not None and not np.array_equal(earlier, own):
                raise SutureError("the test data came in another order than in the pass before, so cells could not be "
                                  "compared in pairs; give a test loader with shuffle=False")
            self.arrays[f"{method}.correct"] = arrays["correct"]
            self.arrays["target.correct"] = own

    def _row(self, i: int, j: int, name: str, e: scores.Estimate, n: int) -> None:
        self.rows.append({"source": str(self.source.sites[i]), "target": str(self.target.sites[j]), "measure": name,
                          "value": e.value, "low": e.low, "high": e.high, "n": n,
                          "direction": measure(name).direction, "reason": e.reason})

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
        order = {name: k for k, name in enumerate(MEASURES)}
        table = pd.DataFrame(self.rows, columns=COLUMNS)
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
            "notes": [*self._standing_notes(), *self.notes], "versions": versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"), "command": " ".join(sys.argv),
        }
        return Comparison(self.names[0], self.names[1], tuple(map(str, self.source.sites)),
                          tuple(map(str, self.target.sites)), same, alike, table, dict(self.arrays), meta)


def _names(source: nn.Module, target: nn.Module, same: bool) -> tuple[str, str]:
    a, b = type(source).__name__, type(target).__name__
    return (f"{a} (source)", f"{b} (target)") if a == b and not same else (a, b)


def _key(prints: tuple[str, str], classes: tuple[str, str], a: SitedNetwork, b: SitedNetwork, plan: _Plan,
         fit: Batches, test: Batches) -> str:
    """16 hex digits for what decides the numbers: networks, sites, settings and the first batch of the data."""
    digest = hashlib.sha256()
    digest.update(repr((prints, classes, a.infos, b.infos, plan.settings(), fit.total(), test.total())).encode())
    for batches in (fit, test):
        batch = next(iter(batches))
        for t in (*tensors(batch.source), *tensors(batch.target), *([] if batch.labels is None else [batch.labels])):
            digest.update(repr(tuple(t.shape)).encode() + convert(t, _bytes).numpy().tobytes())
    return digest.hexdigest()[:16]


def _bytes(t: torch.Tensor) -> torch.Tensor:
    return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def versions() -> dict[str, str]:
    """Versions of everything that computes."""
    from importlib.metadata import version

    return {"suture": version("suture"), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": platform.machine()}
