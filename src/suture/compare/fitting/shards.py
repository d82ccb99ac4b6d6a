"""Shards of a comparison: the pass over a part of the data, anywhere, and the merged result of all parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suture._base import (
    FilePath,
    SutureError,
    UnknownStateError,
    check_file,
    checked,
    expect,
    fill_state,
    load_tensors,
    report_out_of_memory,
    save_tensors,
    write_state,
)
from suture.compare.fitting.filling import Filling
from suture.compare.fitting.moments import add_batch
from suture.compare.key import Key
from suture.compare.records import Findings, encode_shape
from suture.compare.result import list_special, list_standing_notes
from suture.compare.settings import CompareOptions, Settings
from suture.compare.setup import Setup, set_up
from suture.data import ShardDigest, ShardPlace, cut_batch, find_place, read_shard
from suture.networks import disable_gradients
from suture.representations import (
    Accumulators,
    AlignmentRule,
    check_examples,
    explain_unmergeable,
    has_shifts,
    start_shard,
)
from suture.stitching import Family

KIND = "suture.shard/1"
_PLAIN = ("jackknife", "sample", "seed", "nulls", "precision", "examples", "token_rate")
"""Settings that decide what is accumulated, as they are."""
_LABELS = "groups", "within"


@dataclass(frozen=True, eq=False)
class Shard:
    """What the pass over one shard of the data has collected, for `suture.merge`.

    Attributes:
        place: where it lies in the data.
        key: all that decides the numbers of the comparison.
        about: sites, settings and meta of the comparison, as JSON.
        digest: of its examples.
        labels: groups and classes of all examples, as far as they were given.
        state: accumulators, as JSON and tensors (`suture._base.write_state`).
    """

    place: ShardPlace
    key: Key
    about: Mapping[str, Any]
    digest: ShardDigest
    labels: Mapping[str, Tensor]
    state: tuple[Any, Mapping[str, Tensor]]

    def __repr__(self) -> str:
        p = self.place
        which = "no example" if p.start == p.stop else f"examples {p.start + 1:,} to {p.stop:,}"
        return f"Shard({p.number}/{p.count}: {which} of {p.total:,})"

    @checked
    def save(self, path: FilePath) -> Path:
        """Write the shard to a ``.safetensors`` file, whole or not at all.

        Raises:
            SutureError: another ending, or a file that cannot be written.
        """
        check_file(Path(path), ".safetensors")
        tree, tensors = self.state
        parts = {"state": tensors, "digest": self.digest.as_tensors(), "labels": self.labels}
        named = {f"{name}/{k}": t for name, of in parts.items() for k, t in of.items()}
        save_tensors(Path(path), KIND, named, {
            "place": asdict(self.place), "key": self.key, "about": self.about, "state": tree})
        return Path(path)

    @classmethod
    @checked
    def load(cls, path: FilePath) -> Shard:
        """Load what `save` wrote.

        Raises:
            SutureError: the file is missing, damaged or no shard.
        """
        file = load_tensors(Path(path), KIND)
        of: dict[str, dict[str, Tensor]] = {"state": {}, "digest": {}, "labels": {}}
        for name, t in file.tensors.items():
            part, _, key = name.partition("/")
            of[part][key] = t
        about = file.about
        return cls(ShardPlace(**about["place"]), about["key"], about["about"],
                   ShardDigest.from_tensors(of["digest"]), of["labels"], (about["state"], of["state"]))

    @property
    def settings(self) -> Settings:
        """The settings that decide what is accumulated."""
        given = {**self.about["options"], **{name: t.numpy() for name, t in self.labels.items()}}
        return Settings(**{**given, "alignment": AlignmentRule(**given["alignment"])}, ood=None, device="cpu")

    def fill(self, made: Accumulators) -> Accumulators:
        """Give empty accumulators what was collected.

        Raises:
            SutureError: it does not fit, such as that of another version of suture.
        """
        tree, tensors = self.state
        try:
            fill_state({"accumulators": made}, tree, tensors, torch.device("cpu"))
        except UnknownStateError as error:
            raise SutureError(f"{self} does not fit ({error}); compute it again") from error
        return made


def collect_shard(given: CompareOptions) -> Shard:
    """Run the pass over the shard that the options of a comparison name."""
    number, count = given.shard_numbers
    setup = set_up(given)
    _check(setup)
    place = find_place(setup.data.fit, number, count, setup.micro_batch)
    with report_out_of_memory("the pass over a shard", "give fewer sites, or another device"):
        filling, digest = _collect(setup, place)
    check_examples(filling.accumulators)
    tree, tensors = write_state({"accumulators": filling.accumulators})
    held = {name: torch.as_tensor(t).detach().cpu().clone() for name, t in tensors.items()}
    labels = {name: torch.from_numpy(of) for name in _LABELS
              if (of := getattr(setup.settings, name)) is not None}
    return Shard(place, setup.key, _describe(setup), digest, labels, (tree, held))


def _check(setup: Setup) -> None:
    settings = setup.settings
    why = explain_unmergeable(setup.make_accumulators())
    own = next((r.name for r in settings.requests if r.index.user), "")
    why = why or (f"index {own} is a function, which no file holds" if own else "")
    if why:
        raise SutureError(f"expected indices whose shards can be merged, got: {why}; leave it out")
    family = settings.affine_family
    expect(Family.parse(str(family)) == family, "a family of maps that suture knows by name", str(family),
           "write family='full' for shards")


@disable_gradients()
def _collect(setup: Setup, place: ShardPlace) -> tuple[Filling, ShardDigest]:
    filling, digest, data = Filling.of(setup), ShardDigest(), setup.data.fit
    filling.fitter = None
    if 0 < place.start < place.stop:
        start_shard(filling.accumulators, place.start, _collect_first(setup, place.start))
        if filling.share is not None:
            filling.share.start_at(place.start)
    total = len(data.list_sizes())
    for k, (within, batch) in enumerate(read_shard(data, place)):
        with filling.explain_failure(k):
            add_batch(batch, filling)
        digest.update(within, batch)
        if setup.settings.tell_progress:
            setup.settings.tell_progress("moments", k + 1, -(-total // place.count))
    if place.start < place.stop:
        filling.check()
    return filling, digest


def _collect_first(setup: Setup, most: int) -> Accumulators:
    """Return accumulators of the first pieces of all data, about whose means the sums of all shards are."""
    filling, left = Filling.of(setup), most
    filling.fitter = None
    for batch in setup.data.fit.iterate(0):
        for piece in cut_batch(batch, setup.micro_batch):
            if left <= 0 or has_shifts(filling.accumulators):
                return filling.accumulators
            add_batch(piece, filling)
            left -= piece.size
    return filling.accumulators


def _describe(setup: Setup) -> dict[str, Any]:
    """Return what the merged result needs to know beside the sums, as JSON."""
    settings, nothing = setup.settings, Findings()
    options = {name: getattr(settings, name) for name in _PLAIN}
    return {"options": {**options, "indices": [r.name for r in settings.requests],
                        "methods": settings.method_names, "family": str(settings.affine_family),
                        "alignment": asdict(settings.alignment)},
            "names": list(setup.names), "same": setup.source is setup.target,
            "self_stitching": setup.self_stitching,
            "sites": [[str(site) for site in side.sites] for side in (setup.source, setup.target)],
            "shapes": [[encode_shape(s) for s in side.shapes] for side in (setup.source, setup.target)],
            "unfit": [[i, j, why] for (i, j), why in setup.unfit.items()],
            "notes": list_standing_notes(setup, {}), "device": str(settings.torch_device),
            "special": list_special(setup, nothing, {})}
