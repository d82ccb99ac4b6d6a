"""Keys of tasks: hashes of networks, data, settings and versions, each computed once for a whole study."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suture import specs
from suture._base import FOREIGN, SutureError, describe_error, hash_object, hash_parts
from suture.compare import Settings, collect_versions
from suture.data import Batches, Prepared
from suture.studies.population.members import hash_member
from suture.studies.population.pairs import PairName
from suture.studies.running.tasks import PairTask, Work


@dataclass(frozen=True)
class TaskList:
    """The tasks of a study.

    Attributes:
        tasks: in the order in which they run.
        failed: reasons why networks cannot be built, by name; their pairs are no tasks.
        notes: sentences for the reader of the result.
        known: what to pass to the next `list_tasks`.
    """

    tasks: Sequence[PairTask]
    failed: Mapping[str, str]
    notes: Sequence[str]
    known: Mapping[str, Any]


def list_tasks(work: Work, pairs: Sequence[PairName], settings: Settings,
               known: Mapping[str, Any] | None = None) -> TaskList:
    """Open networks once, read the data once, and give each pair its key.

    Args:
        known: what an earlier call found of networks, by their stamps. These are not built again.
    """
    hashes, failed, notes = dict[str, str](), dict[str, str](), list[str]()
    raw, kept = False, dict[str, Any]()
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        try:
            stamp = work.members[name].find_stamp(work.data)
            found = (known or {}).get(stamp or "") or _examine(work.open(name))
            hashes[name], raw = found["hash"], raw or found["prepared"]
            notes += (f"{name}: {note}" for note in found["notes"])
            # Otherwise a file was replaced meanwhile.
            if stamp is not None and stamp == work.members[name].find_stamp(work.data):
                kept[stamp] = found
        except FOREIGN as error:
            failed[name] = str(error) if isinstance(error, SutureError) else describe_error(error)
    sites = hash_object([settings.sites, settings.target_sites]).short
    shared = {"settings": settings.as_key(), "sites": sites,
              "versions": collect_versions(),
              "data": [_digest_data(given, name, raw, notes) for given, name in
                       ((work.data, "data"), (work.test, "test data"))]}
    about = hash_parts(shared)
    tasks = [PairTask(pair, hash_parts({"source": hashes[pair[0]], "target": hashes[pair[1]],
                                        "shared": about}))
             for pair in pairs if not failed.keys() & set(pair)]
    return TaskList(tasks, failed, notes, kept)


def _examine(loaded: specs.LoadedNetwork) -> dict[str, Any]:
    """Return what tasks need to know of a network, as JSON."""
    return {"hash": hash_member(loaded), "prepared": loaded.preprocessing is not None,
            "notes": list(loaded.notes)}


def _digest_data(given: Any, name: str, raw: bool, notes: list[str]) -> Any:
    """Return digests of one pass over data; new ones in every run for data that change by themselves."""
    if given is None:
        return None
    batches = Batches(Prepared(given, _forget) if raw else given, name=name, watched=True)
    if batches.is_random():
        notes.append(f"the {name} come otherwise in every pass, so that earlier results cannot be taken over")
        return secrets.token_hex(8)
    return batches.read_again().as_record()


def _forget(raw: Any) -> Tensor:
    """Prepare nothing, because only the raw examples are read."""
    return torch.zeros(len(raw), 1)
