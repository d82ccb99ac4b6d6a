"""Is the stitched representation real? What to detect with, what on, and how good the detectors are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from suture import auxiliary as makers
from suture._errors import SutureError
from suture.auxiliary.nested import digests
from suture.batches import Batch, Batches, Progress, convert, count, on_device, pieces, tensors
from suture.calls import no_gradients
from suture.cells import Thresholds
from suture.detectors import table
from suture.detectors.energy import EnergyDetector, EnergyRecipe, train_detectors
from suture.detectors.fitting import Fitting
from suture.detectors.scoring import Scoring
from suture.detectors.seen import Detector
from suture.detectors.two_sample import two_sample
from suture.prepare import few
from suture.representations import image_size, mask_of
from suture.separation import auroc, two_sided
from suture.shelf import Shelf, content_key
from suture.sites import SitedNetwork
from suture.stitching.objective import logits_of

HELD_OUT = 500
"""Auxiliary examples that the quality of a detector is measured on; no detector is trained on them."""
MADE_BYTES = 2**29
"""Memory for auxiliary inputs that are made to train a detector with: 43,000 images of 3x32x32, 890 of 3x224x224."""


@dataclass(frozen=True)
class OOD:
    """How out-of-distribution scores are made: which detectors, and what tells whether they see anything.

    >>> suture.compare(network, data=train, test=test, ood=suture.OOD(detectors=("mahalanobis", "energy")))

    Attributes:
        detectors: names of `suture.detectors.table.DETECTORS`. Default: "mahalanobis". The first one gives the verdict
            of a cell. Without any, Fréchet distances alone are there.
        own: detectors of yours by name: a function of a batch of representations that returns (N,) scores, larger =
            more in-distribution, or such functions by target site.
        auxiliary: out-of-distribution inputs for the target network: data as `suture.compare` takes them (labels are
            passed over), or inputs as the network takes them. Default: made from the data (`suture.auxiliary`), where
            these are images or token ids.
        unseen: likewise, of another kind, that no detector is trained on. Default: made from the data by other makers
            where `auxiliary` is made too, else none.
        most: read, or make, at most so many auxiliary examples. Default 10,000.
        energy: recipe of the detector "energy". Default: `EnergyRecipe()`.
        store: folder in which trained detectors are kept and found again by what they were trained on. Default: none.
        thresholds: of the verdict (`suture.cells.Thresholds`).

    Raises:
        SutureError: an unknown detector, or one of your own with the name of suture's.
    """

    detectors: Iterable[str] | str = table.DEFAULT
    own: table.Own = field(default_factory=dict)
    auxiliary: Any = None
    unseen: Any = None
    most: int = 10_000
    energy: EnergyRecipe | None = None
    store: Any = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detectors", table.chosen(self.detectors))
        for name in self.own:
            if name in table.DETECTORS or not name.isidentifier():
                raise SutureError(f"expected a name of its own for your detector, of letters, digits and _, got "
                                  f"{name!r}")
        if self.most < 1:
            raise SutureError(f"expected most of at least 1, got {self.most}; leave it out for 10,000")

    @property
    def names(self) -> tuple[str, ...]:
        """Of all detectors, suture's first."""
        return (*self.detectors, *self.own)

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, for the record."""
        recipe = asdict(self.energy or EnergyRecipe()) if "energy" in self.names else None
        return {"detectors": list(self.names), "energy": recipe, "thresholds": asdict(self.thresholds),
                "auxiliary": "made" if self.auxiliary is None else "given",
                "unseen": "made" if self.unseen is None else "given", "most": self.most}


DEFAULT_OOD = OOD()


@dataclass
class Detection:
    """The detectors of one target network, fitted while its representations pass by, and tried on auxiliary data.

    Args:
        ood: what is wanted.
        target: the network with its sites.
        device, micro: where, and how many examples at once.
        seed: of makers and samples.
        fingerprint: of the target network, for the store.
        data: as the user gave them, to train on in batches of the recipe's size.

    Attributes:
        notes: what a reader of the scores has to know.
        about: conventions, thresholds and the quality of each detector at each site; empty before `judge`.
    """

    ood: OOD
    target: SitedNetwork
    device: torch.device
    micro: int
    seed: int
    fingerprint: str
    data: Any
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    _detectors: dict[str, list[Detector]] = field(default_factory=dict)
    _outside: dict[str, Scoring] = field(default_factory=dict)
    _described: dict[str, str] = field(default_factory=dict)

    def fitting(self) -> Fitting:
        """To be shown the native representations of the data."""
        return Fitting(list(self.ood.detectors), self.target.shapes, self.seed)

    def finish(self, fitted: Fitting, data: Batches, progress: Progress | None = None) -> None:
        """Make the detectors and score auxiliary data with them.

        Raises:
            SutureError: a detector that cannot be fitted, auxiliary data of another shape than the data.
        """
        if not self.ood.names:
            return
        self._detectors = fitted.detectors() | self._plugged()
        self.notes = list(fitted.notes)
        outside = self._auxiliary(data)
        if "energy" in self.ood.names:
            if "training" not in outside:
                raise SutureError("expected auxiliary data to train the detector energy with, and no maker fits these "
                                  "inputs; pass ood=OOD(auxiliary=...), or leave out energy")
            self._detectors["energy"] = self._energy(data, outside["training"], progress)
        for kind in ("auxiliary", "unseen"):
            if kind in outside:
                self._outside[kind] = self._score(outside[kind])

    def scoring(self) -> Scoring:
        """For one pass over the test data."""
        return Scoring(self._detectors, self.target.shapes, "tail_energy" in self.ood.names,
                       "two_sample" in self.ood.names)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """``auxiliary.NAME`` and ``unseen.NAME`` (T, M): scores of auxiliary data."""
        return {f"{kind}.{name}": np.stack(list(scoring.scores(name).values()))
                for kind, scoring in self._outside.items() for name in scoring.names}

    def judge(self, arrays: Mapping[str, NDArray[Any]], tested: Scoring) -> None:
        """Set `about` after a pass over the test data.

        Args:
            arrays: of that pass, with the native test scores.
            tested: its scoring.
        """
        if not self.ood.names:
            return
        arrays = {**arrays, **self.arrays()}
        quality = {name: [self._quality(name, j, arrays, tested) for j in range(len(self.target.sites))]
                   for name in self.ood.names}
        self.about = {"verdict": self.ood.names[0], "thresholds": asdict(self.ood.thresholds), "quality": quality,
                      "positive": "native representations; larger scores are more in-distribution", **self._described}

    def _quality(self, name: str, j: int, arrays: Mapping[str, NDArray[Any]],
                 tested: Scoring) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for kind in ("auxiliary", "unseen"):
            found |= {kind: None, f"{kind}_one_sided": None}
            if kind not in self._outside:
                continue
            if name == "two_sample":
                own, other = tested.features(j), self._outside[kind].features(j)
                n = min(len(own), len(other))
                native, outside = two_sample(own[:n], other[:n], seed=self.seed, quadratic=True)
            else:
                native, outside = arrays[f"native.{name}"][j], arrays[f"{kind}.{name}"][j]
            found |= {kind: two_sided(native, outside), f"{kind}_one_sided": auroc(native, outside)}
        return found

    def _plugged(self) -> dict[str, list[Detector]]:
        found: dict[str, list[Detector]] = {}
        for name, given in self.ood.own.items():
            functions = {str(k): v for k, v in given.items()} if isinstance(given, Mapping) else {}
            absent = [s for s in map(str, self.target.sites) if isinstance(given, Mapping) and s not in functions]
            if absent:
                raise SutureError(f"expected the detector {name!r} for every target site, got none for {absent[0]!r}; "
                                  "pass a function for each, or one function for all")
            found[name] = [table.Plugged(name, str(s), functions.get(str(s), given))  # type: ignore[arg-type]
                           for s in self.target.sites]
        return found

    # -- auxiliary data ------------------------------------------------------------------------------------------

    def _auxiliary(self, data: Batches) -> dict[str, Any]:
        """Inputs by use: "training" of the energy detector, "auxiliary" (held out), "unseen"; absent without any."""
        like = _gather(data, HELD_OUT)
        kind = makers.kind_of_input(like)
        found: dict[str, Any] = {}
        if self.ood.auxiliary is not None:
            given = self._given(self.ood.auxiliary, like, "auxiliary data")
            n = count(given)
            last = min(HELD_OUT, max(1, n // 5)) if "energy" in self.ood.names else min(HELD_OUT, n)
            found["auxiliary"] = _rows(given, slice(n - last, n))
            if n > last:
                found["training"] = _rows(given, slice(0, n - last))
            same = makers.duplicates(given, (b.target for b in data))
            self._described["auxiliary"] = f"given: {n} examples, {last} of them held out"
            if same:
                self.notes.append(f"{same} of {n} auxiliary examples are exact copies of examples in the data")
        elif kind is not None:
            kinds = makers.TRAINING[kind]
            found["auxiliary"] = self._made(like, HELD_OUT, kinds, 1, "auxiliary")
            if "energy" in self.ood.names:
                each = sum(t.nbytes for t in tensors(like)) // count(like)
                n = min(self.ood.most, max(HELD_OUT, MADE_BYTES // each))
                found["training"] = self._made(like, n, kinds, 0, "training")
        if self.ood.unseen is not None:
            found["unseen"] = _rows(self._given(self.ood.unseen, like, "unseen data"), slice(0, HELD_OUT))
            self._described["unseen"] = f"given: {count(found['unseen'])} examples"
        elif kind is not None and self.ood.auxiliary is None:
            found["unseen"] = self._made(like, HELD_OUT, makers.UNSEEN[kind], 2, "unseen")
        if "auxiliary" not in found and "unseen" not in found:
            self.notes.append("no auxiliary data and no maker for this kind of input: nothing shows that the detectors "
                              "see anything, so verdicts are unproven; pass ood=OOD(auxiliary=...)")
        return found

    def _made(self, like: Any, n: int, kinds: Sequence[str], seed: int, use: str) -> Any:
        kinds = makers.allowed(like, kinds)
        if use != "training":
            self._described[use] = f"made from the data: {n} examples of {', '.join(kinds)}"
        return makers.make(like, n, kinds=kinds, seed=3 * self.seed + seed)

    def _given(self, data: Any, like: Any, name: str) -> Any:
        """The first inputs of what a user gave, checked against the data's."""
        found = _gather(as_batches(data, name), self.ood.most)
        got, wanted = ([tuple(t.shape[1:]) for t in tensors(x)] for x in (found, like))
        if got != wanted:
            raise SutureError(f"expected {name} of the data's shape {wanted[0] if len(wanted) == 1 else wanted} per "
                              f"example, got {got[0] if len(got) == 1 else got}; resize them, or leave them out")
        return found

    @torch.no_grad()
    def _score(self, inputs: Any) -> Scoring:
        scoring = self.scoring()
        whole = Batch(inputs, inputs, None)
        with no_gradients():
            for piece in pieces(whole, self.micro):
                given = on_device(piece, self.device).target
                done = self.target.full(given) if scoring.tail_energy else None
                xs = self.target.front(given) if done is None else self.target.representations(done)
                for j, x in enumerate(xs):
                    scoring.look(j, x, mask_of(given))
                    if done is not None:
                        scoring.logits(j, logits_of(done.output))
        return scoring

    # -- trained detectors ---------------------------------------------------------------------------------------

    def _energy(self, data: Batches, outside: Any, progress: Progress | None) -> list[Detector]:
        """Trained detectors of all sites; those that the store holds are not trained again."""
        recipe = self.ood.energy or EnergyRecipe(seed=self.seed)
        first = on_device(next(iter(data)), self.device)
        with no_gradients():
            classes = logits_of(self.target.full(few(first.target)).output).shape[1]
        size = image_size(first.target)
        shelf = None if self.ood.store is None else Shelf(self.ood.store)
        keys = self._keys(data, outside, recipe, classes) if shelf is not None else []
        found: dict[int, EnergyDetector] = {}
        for j, key in enumerate(keys):
            kept = shelf.get(key) if shelf is not None else None
            if kept is not None:
                found[j] = EnergyDetector.make(self.target.shapes[j], classes, recipe, size, str(self.target.sites[j]))
                found[j].load_state_dict(kept)
                found[j].to(self.device).eval().requires_grad_(False)
        rest = [j for j in range(len(self.target.sites)) if j not in found]
        if rest:
            stream = Batches(self.data, size=recipe.batch_size, shuffle=True, seed=recipe.seed)
            made = train_detectors(self.target, stream, outside, recipe, self.device, classes=classes, sites=rest,
                                   micro_batch=self.micro, size=size, progress=progress)
            found |= made
            for j in made if shelf is not None else ():
                shelf.put(keys[j], made[j].state_dict(), {"site": str(self.target.sites[j])})  # type: ignore[union-attr]
        return [found[j] for j in range(len(self.target.sites))]

    def _keys(self, data: Batches, outside: Any, recipe: EnergyRecipe, classes: int) -> list[str]:
        """Where the store keeps the detector of each site: by all that it is trained on."""
        prints = {"network": self.fingerprint, "recipe": asdict(recipe), "classes": classes,
                  "data": _print((b.target, b.labels) for b in data), "auxiliary": _print([outside])}
        return [content_key(prints | {"site": str(site), "shape": str(shape)})
                for site, shape in zip(self.target.sites, self.target.shapes, strict=True)]


def as_batches(data: Any, name: str = "auxiliary data") -> Batches:
    """Data, or inputs as a network takes them, as batches."""
    inputs = isinstance(data, torch.Tensor | Mapping)
    return Batches([Batch(data, data, None)] if inputs else data, name=name)


def _gather(data: Batches, most: int) -> Any:
    """The target network's inputs of the first `most` examples, as one batch on the CPU."""
    parts: list[Any] = []
    left = most
    for batch in data:
        parts.append(_rows(batch.target, slice(0, left)))
        left -= count(parts[-1])
        if left <= 0:
            break
    columns = zip(*(tensors(p) for p in parts), strict=True)
    # What is no axis of examples, such as a single number, is the same for all.
    joined = iter([torch.cat([t.cpu() for t in column]) if column[0].ndim else column[0] for column in columns])
    return convert(parts[0], lambda _: next(joined))


def _print(batches: Iterable[Any]) -> str:
    """16 hex digits for the examples of some data, in their order."""
    digest = hashlib.sha256()
    for inputs in batches:
        for example in digests(inputs):
            digest.update(example)
    return digest.hexdigest()[:16]


def _rows(inputs: Any, rows: slice) -> Any:
    """Some examples of nested inputs."""
    n = count(inputs)
    return convert(inputs, lambda t: t[rows] if t.ndim and len(t) == n else t)
