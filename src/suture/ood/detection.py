"""The detectors of a target network: their fit, their store, and their quality on auxiliary data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture._base import (
    NO_KEEPER,
    Keeper,
    Progress,
    SutureError,
    check_finite,
    check_folder,
    convert_tensors,
    count_examples,
    expect,
    format_times,
    remember_lengths,
    summarise_error,
)
from suture.data import Batch, Batches, MicroBatch, cut_batch, find_input_kind
from suture.networks import OutputKind, SitedNetwork, disable_gradients, extract_main_output
from suture.numbers import auroc, two_sided_auroc
from suture.ood.auxiliary import (
    FEW_EXAMPLES,
    HELD_OUT,
    AuxiliaryData,
    gather_inputs,
    take_examples,
)
from suture.ood.detector import (
    UNSOLVED,
    Detector,
    NativeData,
    NativeSite,
    Statistics,
    Unfitted,
    run_detector,
)
from suture.ood.detector_store import fit_with_store
from suture.ood.features import SiteFeatures
from suture.ood.options import OOD
from suture.ood.scores import ScoreCollector, score_features
from suture.ood.table import FunctionDetector
from suture.representations import Masks, Shape
from suture.stitching import Task

_AUXILIARY_STEP = 64
"""Number of auxiliary examples after which a checkpoint may be written."""


class DetectorFitter:
    """A collector of the statistics of native representations that detectors need.

    `statistics` has a list for each detector, by name: one item for each site, None if the detector needs
    none. Detectors with the same `make_statistics`, a static method, share theirs.
    """

    def __init__(self, detectors: Mapping[str, Detector], shapes: Sequence[Shape], seed: int = 0) -> None:
        self.shapes = shapes
        self._owners = {d.make_statistics: d for d in detectors.values()}
        self._made: dict[Any, list[Statistics | None]] = {}
        for make, detector in self._owners.items():
            with run_detector(detector):
                self._made[make] = [make(seed) for _ in shapes]
        self.statistics = {name: self._made[d.make_statistics] for name, d in detectors.items()}

    @property
    def needed(self) -> bool:
        """True if any detector needs statistics."""
        return any(s is not None for of in self._made.values() for s in of)

    def list_statistics(self) -> list[Any]:
        """Return all statistics, each once, for a checkpoint."""
        return [*self._made.values()]

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], labels: Tensor | None, mask: Masks = None) -> None:
        """Add the representations of a batch, one tensor for each site."""
        if not self.needed:
            return
        if labels is not None and (labels.is_floating_point() or labels.ndim != 1):
            labels = None
        for j, (x, shape) in enumerate(zip(xs, self.shapes, strict=True)):
            seen = SiteFeatures(x, shape, mask)
            for make, of in self._made.items():
                if (statistics := of[j]) is not None:
                    with run_detector(self._owners[make]):
                        statistics.update(seen.spread, labels)


@dataclass
class Detection:
    """The detectors of one target network, fitted to its representations and assessed on auxiliary data.

    Args:
        ood: the settings.
        target, device, micro_batch, fingerprint, data: see `NativeData`.
        seed: of samples and of data that are made.

    Attributes:
        notes: sentences for the reader of the scores.
        about: conventions and quality of each detector at each site, after `describe_quality`.
    """

    ood: OOD
    target: SitedNetwork
    device: torch.device
    micro_batch: int | MicroBatch
    seed: int
    fingerprint: str
    data: Any
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    _fitted: dict[str, list[Detector]] = field(default_factory=dict)
    _auxiliary: AuxiliaryData = field(default_factory=AuxiliaryData)
    _scored: dict[str, ScoreCollector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chosen = self.ood.list_detectors()
        self._trained = [name for name, d in self._chosen.items() if d.needs_auxiliary]
        self._store = None if self.ood.store is None else Path(self.ood.store)

    def check_user_inputs(self, first: Batch) -> None:
        """Check the user's detectors, auxiliary data and store, before any work.

        `first` is a few examples on the device. A `SutureError` names what fails.
        """
        functions = [d for d in self._chosen.values() if isinstance(d, FunctionDetector)]
        natives = self._run_front("data", first.target) if functions else []
        for detector, (site, x) in product(functions, zip(self._list_sites(), natives, strict=False)):
            detector.fit(site).score(SiteFeatures(x, site.shape, self.target.find_masks(first.target)))
        like = convert_tensors(first.target, lambda t: t.cpu())
        for use, given in (("auxiliary", self.ood.auxiliary), ("unseen", self.ood.unseen)):
            if given is not None:
                self._auxiliary.add_given(use, given, like, self.ood.most)
                self._run_front(f"{use} data", take_examples(self._auxiliary.inputs[use], slice(0, 4)))
        if self._trained:
            name = self._trained[0]
            expect(self.ood.auxiliary is not None or find_input_kind(like) is not None,
                   f"auxiliary data to train the detector {name} with", "none, and none can be made",
                   f"pass ood=OOD(auxiliary=...), or leave out {name}")
            if self._store is not None:
                check_folder(self._store)

    def _run_front(self, what: str, inputs: Any) -> list[Tensor]:
        try:
            with disable_gradients():
                return self.target.front(convert_tensors(inputs, lambda t: t.to(self.device)))
        except (RuntimeError, TypeError, KeyError) as e:
            raise SutureError(f"the target network fails on the {what}: {summarise_error(e)}; give "
                              "inputs nested like the data's") from e

    def check_task(self, task: Task, kind: OutputKind = OutputKind.LOGITS) -> None:
        """Raise a `SutureError` if a detector needs logits or classes that the task does not have.

        `kind` is that of the target network's output.
        """
        for name, detector in self._chosen.items():
            expect(not detector.needs_energy or kind not in (OutputKind.PROBABILITIES,
                                                             OutputKind.LOG_PROBABILITIES),
                   f"logits before the softmax for the detector {name}", kind.value,
                   f"leave {name} out of detectors")
            lacks = ("logits" if (detector.needs_logits or detector.needs_classes) and task is Task.NONE else
                     "one class for each example" if detector.needs_labels and task.of_tokens else "")
            expect(not lacks, f"{lacks} for the detector {name}", f"task={task.value!r}",
                   f"leave {name} out of detectors")

    def make_fitter(self) -> DetectorFitter:
        """Return a fitter that collects the native representations of the data."""
        return DetectorFitter(self._chosen, self.target.shapes, self.seed)

    def finish(self, fitter: DetectorFitter, data: Batches, progress: Progress | None = None,
               keeper: Keeper = NO_KEEPER) -> None:
        """Fit the detectors to the collected statistics, and score auxiliary data with them.

        Raises:
            SutureError: a detector that cannot be fitted, auxiliary data that are too few or not finite.
        """
        if not self._chosen:
            return
        outside, trained = self._auxiliary, self._trained
        if self.ood.auxiliary is not None:
            outside.count_copies(data)
        outside.make_missing(gather_inputs(data, HELD_OUT), training=self.ood.most if trained else 0,
                             unseen=self.ood.unseen is None, seed=self.seed)
        expect(not trained or "training" in outside.inputs,
               f"auxiliary data to train the detectors {', '.join(trained)} with",
               outside.about.get("auxiliary", "none"), "pass more in ood=OOD(auxiliary=...)")
        native = NativeData(self.target, self.data, data, self.ood.choose_recipe(self.seed),
                            self.device, self.micro_batch, self.fingerprint, outside.inputs.get("training"),
                            progress, keeper)
        notes: list[str] = []
        for name, detector in self._chosen.items():
            sites = self._list_sites(native, fitter.statistics[name])
            loaded: list[str] = []
            self._fitted[name] = fit_with_store(detector, sites, native, self._store, loaded)
            if loaded:
                notes.append(f"trained detectors taken over from {str(self._store)!r}: {name} at "
                             f"{len(loaded)} sites (computed {format_times(loaded)})")
                if progress:
                    progress(notes[-1], 1, 1)
            fitted = [d for d in self._fitted[name] if not isinstance(d, Unfitted)]
            notes += detector.describe_fit(fitted) if fitted else []
        self.notes = [*dict.fromkeys(notes), *outside.notes]
        self._scored = {use: self._score_auxiliary(use, outside.inputs[use], keeper)
                        for use in ("auxiliary", "unseen") if use in outside.inputs}

    def _list_sites(self, native: NativeData | None = None,
                    statistics: Iterable[Statistics | None] = repeat(None)) -> list[NativeSite]:
        places = zip(self.target.sites, self.target.shapes, statistics, strict=False)
        return [NativeSite(str(site), shape, self.seed, of, native, j)
                for j, (site, shape, of) in enumerate(places)]

    @torch.no_grad()
    def _score_auxiliary(self, use: str, inputs: Any, keeper: Keeper = NO_KEEPER) -> ScoreCollector:
        scoring, pieces = self.make_collector(), MicroBatch.of(self.micro_batch)
        with keeper.keep(f"{use} data", scoring.get_state()) as kept:
            kept.fill_unless_changed()
            for k, part in enumerate(cut_batch(Batch(inputs, inputs, None), _AUXILIARY_STEP)):
                if k >= kept.before:
                    for _ in pieces.map(part, self.device,
                                        lambda piece: self._score_piece(use, piece.target, scoring)):
                        pass
                    kept.step(k + 1)
            kept.finish(-(-count_examples(inputs) // _AUXILIARY_STEP))
        return scoring

    def _score_piece(self, use: str, inputs: Any, scoring: ScoreCollector) -> None:
        """Score the native representations of some inputs; leave nothing behind if that fails."""
        undo, mask = remember_lengths(scoring.list_parts), self.target.find_masks(inputs)
        try:
            with disable_gradients():
                done = self.target.run_full(inputs) if scoring.needs_logits else None
                xs = self.target.front(inputs) if done is None else self.target.pick_representations(done)
            logits = None if done is None else extract_main_output(done.output)
            for j, (site, x) in enumerate(zip(self._list_sites(), xs, strict=True)):
                check_finite(SiteFeatures(x, site.shape, mask).mean, f"the representation of {use} data at "
                             f"target site {site.name!r}", "remove the examples that give it")
                scoring.add(j, x, mask, logits)
        except (RuntimeError, MemoryError):
            undo()
            raise

    def count_made(self) -> int:
        """Return the number of auxiliary examples that pass the target network once."""
        return 2 * HELD_OUT if self._chosen else 0

    def make_collector(self) -> ScoreCollector:
        """Return a score collector for one pass over the test data."""
        return ScoreCollector(self._fitted, self.target.shapes)

    def stack_auxiliary_scores(self) -> dict[str, NDArray[Any]]:
        """Return the scores of auxiliary data: ``auxiliary.NAME`` and ``unseen.NAME``, each (T, M)."""
        return {f"{use}.{name}": np.stack(list(scores.values()))
                for use, scoring in self._scored.items() for name in self._chosen
                if (scores := scoring.join_scores(name))}

    def describe_quality(self, arrays: Mapping[str, NDArray[Any]], tested: ScoreCollector) -> None:
        """Set `about`, from the score collector of the pass over the test data and its arrays."""
        if not self._chosen:
            return
        arrays = {**arrays, **self.stack_auxiliary_scores()}
        quality = {name: [self._measure_quality(name, j, arrays, tested)
                          for j in range(len(self.target.sites))] for name in self._chosen}
        self.about = {"quality": quality,
                      "positive": "native representations; larger scores are more in-distribution",
                      **{k: v for k, v in self._auxiliary.about.items() if k != "training"}}

    def _measure_quality(self, name: str, j: int, arrays: Mapping[str, NDArray[Any]],
                         tested: ScoreCollector) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for use in ("auxiliary", "unseen"):
            pair = None
            if use not in self._scored or count_examples(self._auxiliary.inputs[use]) < FEW_EXAMPLES:
                pass
            elif self._chosen[name].per_cell:
                own, other = tested.join_features(j), self._scored[use].join_features(j)
                n = min(len(own), len(other))
                with suppress(*UNSOLVED):
                    pair = score_features(self._fitted[name][j], own[:n], other[:n]) if n > 1 else None
            else:
                pair = arrays[f"native.{name}"][j], arrays[f"{use}.{name}"][j]
            sound = pair is not None and not any(np.isnan(scores).any() for scores in pair)
            found |= {use: two_sided_auroc(*pair) if pair and sound else None,
                      f"{use}_one_sided": auroc(*pair) if pair and sound else None}
        return found
