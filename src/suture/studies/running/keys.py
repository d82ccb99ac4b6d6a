"""Keys of tasks: hashes of networks, data, settings and versions, each computed once for a whole study."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from suture._base import (
    FOREIGN,
    SutureError,
    count_examples,
    fingerprint_network,
    hash_object,
    hash_parts,
)
from suture.compare import Settings, collect_versions, describe_preparation
from suture.data import Batches, Paired, Prepared
from suture.specs import LoadedNetwork
from suture.studies.population.members import Member, hash_member
from suture.studies.population.pairs import PairName
from suture.studies.running.engines import explain_failure
from suture.studies.running.tasks import PairTask, Work


@dataclass(frozen=True)
class TaskList:
    """The tasks of a study.

    Attributes:
        tasks: in the order in which they run.
        failed: reasons why networks cannot be built, by name; their pairs are no tasks.
        notes: sentences for the reader of the result.
    """

    tasks: Sequence[PairTask]
    failed: Mapping[str, str]
    notes: Sequence[str]


def list_tasks(work: Work, pairs: Sequence[PairName], settings: Settings) -> TaskList:
    """Open every network once, read the data once, and give each pair its key."""
    hashes, weights, failed = dict[str, str](), dict[str, str](), dict[str, str]()
    own = ""
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        try:
            loaded = work.open(name)
            hashes[name], weights[name] = hash_member(loaded), _fingerprint(work.members[name], loaded)
            own = own or (name if loaded.preprocessing is not None else "")
        except FOREIGN as error:
            failed[name] = explain_failure(error)
    for given in (work.data, work.test):
        if own and isinstance(given, Prepared | Paired):
            raise SutureError(f"expected raw examples, as {own!r} brings its own preprocessing, got "
                              f"{type(given).__name__}; give them, or networks without preprocessing")
    notes: list[str] = []
    sites = hash_object([settings.sites, settings.target_sites]).short
    shared = {"settings": settings.as_key(), "sites": sites,
              "versions": collect_versions(),
              "data": [[describe_preparation(given), _digest_data(given, name, bool(own), notes)]
                       for given, name in ((work.data, "data"), (work.test, "test data"))]}
    about = hash_parts(shared)
    tasks = [PairTask(pair, hash_parts({"source": hashes[pair[0]], "target": hashes[pair[1]],
                                        "shared": about}), (weights[pair[0]], weights[pair[1]]))
             for pair in pairs if not failed.keys() & set(pair)]
    return TaskList(tasks, failed, notes)


def _fingerprint(member: Member, loaded: LoadedNetwork) -> str:
    return "" if isinstance(member.given, nn.Module) else fingerprint_network(loaded.network)


def _digest_data(given: Any, name: str, raw: bool, notes: list[str]) -> Any:
    """Return digests of one pass over data, in any order if loaders shuffle them.

    For data that change by themselves they are new in every call.
    """
    if given is None:
        return None
    batches = Batches(Prepared(given, _forget) if raw else given, name=name, watched=True)
    seen, changes = batches.read_again(), batches.is_random()
    if not changes and _hash_first(batches) == _hash_first(batches):
        return seen.as_record()
    loader = given.data if isinstance(given, Prepared) else given
    if not (changes and isinstance(loader, DataLoader)) and batches.read_again().any_order == seen.any_order:
        return {"examples": seen.examples, "any_order": seen.any_order, "batches": seen.batches}
    notes.append(f"the {name} come otherwise in every pass, so that earlier results cannot be taken over")
    return secrets.token_hex(8)


def _hash_first(batches: Batches) -> str:
    first = next(iter(batches))
    return hash_object([first.source if first.raw is None else first.raw, first.labels]).state


def _forget(raw: Any) -> Tensor:
    """Prepare nothing, because only the raw examples are read."""
    return torch.zeros(count_examples(raw), 1)
