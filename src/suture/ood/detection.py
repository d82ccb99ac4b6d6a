"""The detectors of a target network: their fit, and their quality on auxiliary data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from suture._base import Progress, SutureError, convert_tensors, count_examples, hash_parts, summarise_error
from suture.data import Batch, Batches, can_shuffle, cut_batch, find_input_kind, move_batch
from suture.networks import SitedNetwork, disable_gradients, extract_main_output, take_first
from suture.numbers import auroc, two_sided_auroc
from suture.ood.auxiliary import (
    FEW_EXAMPLES,
    HELD_OUT,
    AuxiliaryData,
    fingerprint_examples,
    gather_inputs,
    take_examples,
)
from suture.ood.cache import DetectorCache
from suture.ood.detectors import registry as table
from suture.ood.detectors.energy_detector import EnergyDetector, EnergyRecipe
from suture.ood.detectors.energy_training import train_detectors
from suture.ood.detectors.fitter import DetectorFitter
from suture.ood.detectors.score_collector import ScoreCollector
from suture.ood.detectors.site_features import Detector, SiteFeatures
from suture.ood.detectors.two_sample import score_two_sample
from suture.ood.options import OOD
from suture.representations import find_image_size, get_token_mask
from suture.stitching import Task, extract_logits


@dataclass
class Detection:
    """The detectors of one target network, fitted on its representations and tested on auxiliary data.

    Args:
        ood: the settings.
        target: the network with its sites.
        device, micro_batch: device, and number of examples per pass.
        seed: of makers and samples.
        fingerprint: of the target network, for the store.
        data: as the user gave them; trained detectors use batches of the recipe's size.

    Attributes:
        notes: sentences for the reader of the scores.
        about: conventions, thresholds and the quality of each detector at each site; empty before
            `describe_quality`.
    """

    ood: OOD
    target: SitedNetwork
    device: torch.device
    micro_batch: int
    seed: int
    fingerprint: str
    data: Any
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _auxiliary: AuxiliaryData = field(default_factory=AuxiliaryData)
    _scored: dict[str, ScoreCollector] = field(default_factory=dict)

    def check_user_inputs(self, first: Batch) -> None:
        """Check, before any work, the detectors, auxiliary data and store that a user gave.

        Args:
            first: a few examples, on the device.

        Raises:
            SutureError: a detector that fails or returns no scores, auxiliary data unlike the data, no data
                to train a detector on, a folder that cannot be written.
        """
        own = self._make_user_detectors()
        if own:
            with disable_gradients():
                natives = self.target.front(first.target)
            for detectors in own.values():
                for detector, x, shape in zip(detectors, natives, self.target.shapes, strict=True):
                    detector.score(SiteFeatures(x, shape, get_token_mask(first.target)))
        like = convert_tensors(first.target, lambda t: t.cpu())
        for use, given in (("auxiliary", self.ood.auxiliary), ("unseen", self.ood.unseen)):
            if given is not None:
                self._auxiliary.add_given(use, given, like, self.ood.most)
                self._try_front(use, take_examples(self._auxiliary.inputs[use], slice(0, 4)))
        if "energy" in self.ood.names:
            if self.ood.auxiliary is None and find_input_kind(like) is None:
                raise SutureError("expected auxiliary data to train the detector energy with, and no maker "
                                  "fits these inputs; pass ood=OOD(auxiliary=...), or leave out energy")
            if self.ood.store is not None:
                DetectorCache(self.ood.store).check()

    def _try_front(self, use: str, inputs: Any) -> None:
        try:
            with disable_gradients():
                self.target.front(convert_tensors(inputs, lambda t: t.to(self.device)))
        except (RuntimeError, TypeError, KeyError) as e:
            raise SutureError(f"the target network fails on the {use} data: {summarise_error(e)}; give "
                              "inputs nested like the data's") from e

    def check_task(self, task: Task) -> None:
        """Check that the target network's output suits the detectors.

        Raises:
            SutureError: a detector that needs logits or classes, for an output without them.
        """
        for name, needed, there in (("energy", "logits (N, classes)", task is Task.CLASSIFICATION),
                                    ("tail_energy", "logits", task is not Task.NONE)):
            if name in self.ood.names and not there:
                raise SutureError(f"expected {needed} of the target network for the detector {name}, got "
                                  f"task={task.value!r}; leave {name} out of detectors")

    def make_fitter(self) -> DetectorFitter:
        """Return a fitter for the native representations of the data."""
        return DetectorFitter(list(self.ood.detectors), self.target.shapes, self.seed)

    def finish(self, fitter: DetectorFitter, data: Batches, progress: Progress | None = None) -> None:
        """Make the detectors, and score auxiliary data with them.

        Raises:
            SutureError: a detector that cannot be fitted, auxiliary data that are not finite or too few.
        """
        if not self.ood.names:
            return
        self._detectors = fitter.make_detectors(self.device) | self._make_user_detectors()
        outside = self._auxiliary
        if self.ood.auxiliary is not None:
            outside.count_copies(data)
        outside.make_missing(gather_inputs(data, HELD_OUT), training=self.ood.most if "energy"
                             in self.ood.names else 0, unseen=self.ood.unseen is None, seed=self.seed)
        self.notes = [*fitter.notes, *outside.notes]
        if "energy" in self.ood.names:
            if "training" not in outside.inputs:
                raise SutureError(
                    "expected auxiliary data to train the detector energy with, got "
                    f"{outside.about.get('auxiliary', 'none, and none can be made from these inputs')}; pass "
                    "more in ood=OOD(auxiliary=...), or leave out energy")
            self._detectors["energy"] = self._make_energy_detectors(data,
                                                                    outside.inputs["training"], progress)
        self._scored = {kind: self._score_auxiliary(kind, outside.inputs[kind])
                        for kind in ("auxiliary", "unseen") if kind in outside.inputs}

    def make_collector(self) -> ScoreCollector:
        """Return a score collector for one pass over the test data."""
        return ScoreCollector(self._detectors, self.target.shapes, "tail_energy" in self.ood.names,
                       "two_sample" in self.ood.names)

    def stack_auxiliary_scores(self) -> dict[str, NDArray[Any]]:
        """Return the scores of auxiliary data: ``auxiliary.NAME`` and ``unseen.NAME``, each (T, M)."""
        return {f"{kind}.{name}": np.stack(list(scoring.join_scores(name).values()))
                for kind, scoring in self._scored.items() for name in scoring.names}

    def describe_quality(self, arrays: Mapping[str, NDArray[Any]], tested: ScoreCollector) -> None:
        """Set `about` after a pass over the test data.

        Args:
            arrays: of that pass, with the native test scores.
            tested: the score collector of that pass.
        """
        if not self.ood.names:
            return
        arrays = {**arrays, **self.stack_auxiliary_scores()}
        quality = {name: [self._measure_quality(name, j, arrays, tested)
                          for j in range(len(self.target.sites))] for name in self.ood.names}
        self.about = {"verdict": self.ood.names[0], "thresholds": asdict(self.ood.thresholds), "quality":
                      quality, "positive": "native representations; larger scores are more in-distribution",
                      **{k: v for k, v in self._auxiliary.about.items() if k != "training"}}

    def _measure_quality(self, name: str, j: int, arrays: Mapping[str, NDArray[Any]],
                         tested: ScoreCollector) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for kind in ("auxiliary", "unseen"):
            found |= {kind: None, f"{kind}_one_sided": None}
            if kind not in self._scored or count_examples(self._auxiliary.inputs[kind]) < FEW_EXAMPLES:
                continue
            if name == "two_sample":
                own, other = tested.join_features(j), self._scored[kind].join_features(j)
                n = min(len(own), len(other))
                if n < 2:
                    continue
                native, outside = score_two_sample(own[:n], other[:n], seed=self.seed, quadratic=True)
            else:
                native, outside = arrays[f"native.{name}"][j], arrays[f"{kind}.{name}"][j]
            found |= {kind: two_sided_auroc(native, outside), f"{kind}_one_sided": auroc(native, outside)}
        return found

    def _make_user_detectors(self) -> dict[str, list[Detector]]:
        found: dict[str, list[Detector]] = {}
        for name, given in self.ood.own.items():
            several = isinstance(given, Mapping | nn.ModuleDict)
            each: Any = given
            functions = {str(k): v for k, v in each.items()} if several else {}
            absent = [s for s in map(str, self.target.sites) if several and s not in functions]
            if absent:
                raise SutureError(f"expected the detector {name!r} for every target site, got none for "
                                  f"{absent[0]!r}; pass a function for each, or one function for all")
            found[name] = [table.UserDetector(name, str(s), functions.get(str(s), each))
                           for s in self.target.sites]
        return found

    @torch.no_grad()
    def _score_auxiliary(self, kind: str, inputs: Any) -> ScoreCollector:
        scoring = self.make_collector()
        whole = Batch(inputs, inputs, None)
        with disable_gradients():
            for piece in cut_batch(whole, self.micro_batch):
                given = move_batch(piece, self.device).target
                done = self.target.run_full(given) if scoring.tail_energy else None
                xs = self.target.front(given) if done is None else self.target.pick_representations(done)
                for j, x in enumerate(xs):
                    if not torch.isfinite(SiteFeatures(x, self.target.shapes[j],
                                                       get_token_mask(given)).mean).all():
                        raise SutureError(f"NaN or inf in the representation of {kind} data at target site "
                                          f"{str(self.target.sites[j])!r}; remove the examples that give it")
                    scoring.add_representations(j, x, get_token_mask(given))
                    logits = None if done is None else extract_main_output(done.output)
                    if logits is not None:
                        scoring.add_logits(j, logits, get_token_mask(given))
        return scoring

    def _make_energy_detectors(self, data: Batches, auxiliary: Any,
                               progress: Progress | None) -> list[Detector]:
        """Return the trained detectors of all sites, with those in the store as they are."""
        recipe = self.ood.energy or EnergyRecipe(seed=self.seed)
        first = move_batch(next(iter(data)), self.device)
        with disable_gradients():
            classes = extract_logits(self.target.run_full(take_first(first.target)).output).shape[1]
        size = find_image_size(first.target)
        shelf = None if self.ood.store is None else DetectorCache(self.ood.store)
        keys = self._make_keys(data, auxiliary, recipe, classes) if shelf is not None else []
        found: dict[int, EnergyDetector] = {}
        for j, key in enumerate(keys):
            kept = shelf.get(key) if shelf is not None else None
            if kept is not None:
                found[j] = EnergyDetector.make(self.target.shapes[j], classes, recipe, size,
                                               str(self.target.sites[j]))
                found[j].load_state_dict(kept)
                found[j].to(self.device).eval().requires_grad_(False)
        rest = [j for j in range(len(self.target.sites)) if j not in found]
        if rest:
            stream = Batches(self.data, size=recipe.batch_size, shuffle=True, seed=recipe.seed)
            made = train_detectors(self.target, stream, auxiliary, recipe, self.device, classes=classes,
                                   sites=rest, micro_batch=self.micro_batch, size=size, progress=progress)
            found |= made
            if shelf is not None:
                for j in made:
                    shelf.put(keys[j], made[j].state_dict(), {"site": str(self.target.sites[j])})
        return [found[j] for j in range(len(self.target.sites))]

    def _make_keys(self, data: Batches, auxiliary: Any, recipe: EnergyRecipe, classes: int) -> list[str]:
        """Return the store's key of each site's detector, from everything that it is trained on."""
        # The order of the examples is left out, so that a loader that shuffles finds its own detectors. The
        # batch sizes are included, because they change the training.
        stream = "suture's" if can_shuffle(self.data) else [b.size for b in data]
        prints = {"network": self.fingerprint, "recipe": asdict(recipe), "classes": classes,
                  "batches": stream, "data": fingerprint_examples((b.target, b.labels) for b in data),
                  "auxiliary": fingerprint_examples([auxiliary])}
        return [hash_parts(prints | {"site": str(site), "shape": str(shape)})
                for site, shape in zip(self.target.sites, self.target.shapes, strict=True)]
