"""Keys of tasks: hashes of networks, data, settings and versions, each computed once for a whole study."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from suture import specs
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
        known: what to pass to the next `list_tasks`.
        shares: True if pairs can share passes: all networks get the same examples, in the same order.
    """

    tasks: Sequence[PairTask]
    failed: Mapping[str, str]
    notes: Sequence[str]
    known: Mapping[str, Any]
    shares: bool


def list_tasks(work: Work, pairs: Sequence[PairName], settings: Settings,
               known: Mapping[str, Any] | None = None) -> TaskList:
    """Open networks once, read the data once, and give each pair its key.

    Args:
        known: what an earlier call found of networks, by their stamps. These are not built again.
    """
    examined, failed, kept = dict[str, dict[str, Any]](), dict[str, str](), dict[str, Any]()
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        member = work.members[name]
        try:
            stamp = member.find_stamp(work.data)
            examined[name] = (known or {}).get(stamp or "") or _examine(member, work.open(name))
            # Otherwise a file was replaced meanwhile.
            if stamp is not None and stamp == member.find_stamp(work.data):
                kept[stamp] = examined[name]
        except FOREIGN as error:
            failed[name] = explain_failure(error)
    own = next((name for name, found in examined.items() if found["prepared"]), "")
    for given in (work.data, work.test):
        if own and isinstance(given, Prepared | Paired):
            raise SutureError(f"expected raw examples, as {own!r} brings its own preprocessing, got "
                              f"{type(given).__name__}; give them, or networks without preprocessing")
    notes = [f"{name}: {note}" for name, found in examined.items() for note in found["notes"]]
    sites = hash_object([settings.sites, settings.target_sites]).short
    shared: dict[str, Any] = {"settings": settings.as_key(), "sites": sites,
              "versions": collect_versions(),
              "data": [[describe_preparation(given), _digest_data(given, name, bool(own), notes)]
                       for given, name in ((work.data, "data"), (work.test, "test data"))]}
    if auxiliary := _digest_auxiliary(settings, notes):
        shared["auxiliary"] = auxiliary
    about = hash_parts(shared)
    tasks = []
    for pair in (pair for pair in pairs if not failed.keys() & set(pair)):
        one, other = (examined[name] for name in pair)
        key = hash_parts({"source": one["hash"], "target": other["hash"], "shared": about})
        tasks.append(PairTask(pair, key, (one["weights"], other["weights"])))
    seen = shared["data"][0][1]
    shares = (not (own or isinstance(work.data, Prepared | Paired)) and "inputs" in (seen or {})
              and _has_one_input(work.data))
    return TaskList(tasks, failed, notes, kept, shares)


def _has_one_input(data: Any) -> bool:
    """Return True if both networks of a pair get the same inputs, as not those of permuted examples."""
    first = next(iter(Batches(data)))
    return first.source is first.target


def _examine(member: Member, loaded: specs.LoadedNetwork) -> dict[str, Any]:
    """Return what tasks need to know of a network, as JSON."""
    given = isinstance(member.given, nn.Module)
    return {"hash": hash_member(loaded), "prepared": loaded.preprocessing is not None,
            "notes": list(loaded.notes), "weights": "" if given else fingerprint_network(loaded.network)}


def _digest_data(given: Any, name: str, raw: bool, notes: list[str]) -> Any:
    """Return digests of one pass over data, in any order if loaders shuffle them.

    For data that change by themselves they are new in every call.
    """
    if given is None:
        return None
    batches = Batches(Prepared(given, _forget) if raw else given, name=name, watched=True)
    return _digest_batches(batches, given.data if isinstance(given, Prepared) else given, notes)


def _digest_auxiliary(settings: Settings, notes: list[str]) -> dict[str, Any]:
    """Return digests of what is used of given auxiliary and unseen data, by name."""
    if settings.detection is None:
        return {}
    raw = replace(settings, ood=settings.detection.prepare_like(Prepared((), _forget)))
    return {name: _digest_batches(batches, None, notes) for name, batches in raw.open_auxiliary().items()}


def _digest_batches(batches: Batches, loader: Any, notes: list[str]) -> Any:
    seen, changes = batches.read_again(), batches.is_random()
    if not changes and _hash_first(batches) == _hash_first(batches):
        return seen.as_record()
    if not (changes and isinstance(loader, DataLoader)) and batches.read_again().any_order == seen.any_order:
        return {"examples": seen.examples, "any_order": seen.any_order, "batches": seen.batches}
    notes.append(f"the {batches.name} come otherwise in every pass, so that earlier results cannot be taken "
                 "over")
    return secrets.token_hex(8)


def _hash_first(batches: Batches) -> str:
    first = next(iter(batches))
    return hash_object([first.source if first.raw is None else first.raw, first.labels]).state


def _forget(raw: Any) -> Tensor:
    """Prepare nothing, because only the raw examples are read."""
    return torch.zeros(count_examples(raw), 1)
