"""The public call `compare_arrays`: structural indices of named arrays, or of two matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from suture._base import SutureError, get_time, report_out_of_memory, takes
from suture.compare.arrays.options import ArrayOptions, select_settings
from suture.compare.arrays.sides import ArrayReader, ArraySide, open_sides
from suture.compare.fitting.filling import Filling
from suture.compare.fitting.index_rows import describe_indices
from suture.compare.fitting.moments import collect_moments, compute_published
from suture.compare.kept_run import open_kept_run, report_checkpoints
from suture.compare.key import make_key
from suture.compare.records import Findings, SharedSetup
from suture.compare.result import build_comparison, take_over
from suture.data import Batches, MicroBatch
from suture.indices import Named, Value, check_count
from suture.indices import compare_arrays as compare_matrices
from suture.representations import PAPER_EXAMPLES, Accumulators, AlignmentError
from suture.results import Comparison

STAGE = "moments"
"""The only stage, as in a comparison of networks."""


@dataclass(frozen=True)
class ArrayData:
    """The arrays as data of a comparison; `paper` holds their first examples, None without an index of it."""

    fit: Batches
    paper: Batches | None

    @property
    def watched(self) -> Mapping[str, Batches]:
        return {"arrays": self.fit} | ({} if self.paper is None else {"first arrays": self.paper})


@dataclass(frozen=True, kw_only=True)
class ArraySetup(SharedSetup):
    """The input of a comparison of arrays; `notes` follow from it alone."""

    source: ArraySide
    target: ArraySide
    data: ArrayData
    reader: ArrayReader
    notes: Sequence[str]


@overload
def compare_arrays(source: Mapping[Any, Any], target: Mapping[Any, Any] | None = None,
                   indices: Iterable[Named] | Named = "default", **options: Any) -> Comparison: ...


@overload
def compare_arrays(source: Any, target: Any, indices: Iterable[Named] | Named = "default",
                   **options: Any) -> dict[str, Value]: ...


@takes(ArrayOptions)  # type: ignore[misc]  # the overloads do not list the options again
def compare_arrays(given: ArrayOptions) -> Comparison | dict[str, Value]:
    """Compare arrays by name, such as features that were saved earlier, without any network.

    >>> result = suture.compare_arrays(np.load("a.npz"), np.load("b.npz"), ["cka_debiased", "r2_folds"])
    >>> result.plot("cka_debiased"); result.report("report.html")

    Row k of every array must be of the same example: arrays in another order cannot be noticed, and give
    indices near chance. One pass over all arrays, in batches, gives the indices of all cells, as in
    `suture.compare` with ``methods=()``; arrays may be larger than memory. A list of one array (T, D) for
    each example holds texts of various lengths, without padding.

    Two matrices in place of the dictionaries give their indices alone. Each is an array (n, p), a ``.npy``,
    ``.npz`` or ``.safetensors`` file with one array, or a folder of such files, whose names are the same in
    both and give the order of the rows. Files are read in pieces, never unpickled.

    Args:
        {options}

    Returns:
        A `Comparison` of dictionaries; `suture.indices.Value` by index of two matrices.

    Raises:
        SutureError: arrays without the same examples, NaN or inf, other than real numbers, options of one
            form given to the other.
    """
    if given.is_named:
        return _compare_named(given)
    return compare_matrices(given.source, given.target, given.indices, jackknife=given.jackknife,
                            sample=given.sample, seed=given.seed, nulls=given.nulls,
                            groups=given.groups, within=given.within, save=given.save)


def _compare_named(given: ArrayOptions) -> Comparison:
    with open_kept_run(given) as kept:
        setup = kept.keep(_set_up(given))
        found = Findings() if kept.previous is None else take_over(kept.previous, setup, setup.notes)
        if STAGE not in found.stages:
            with report_out_of_memory("the pass over the arrays", "give fewer arrays, indices of one "
                                      "alignment at a time, or another device"):
                found = found.add(_measure(setup))
            report_checkpoints(setup)
        result = _assemble(setup, found)
        kept.save(result, STAGE)
        kept.end()
        return result


def _set_up(given: ArrayOptions) -> ArraySetup:
    settings = given.settings
    reader = open_sides(given.source, given.target, given.kinds, given.labels,
                        settings.accumulator_settings.precision)
    source, target = reader.source, reader.target
    for name in ("groups", "within"):
        check_count(getattr(settings, name), len(source.arrays[0]), name)

    def read(name: str, most: int | None = None) -> Batches:
        return Batches(reader, name=name, most=most, watched=True)

    paper = any(r.alignment == "paper" for r in settings.requests)
    data = ArrayData(read("arrays"), read("first arrays", PAPER_EXAMPLES) if paper else None)
    about = {side.name: ", ".join(f"{name} ({shape})" for name, shape in zip(
        side.sites, side.shapes, strict=True)) for side in (source, target)}
    key = make_key(select_settings(settings.as_key()) | {"of": "arrays"}
                   | {f"{side}.arrays": text for side, text in about.items()}, {}, {}, {"inputs": ""})
    names = settings.names or (("arrays", "arrays") if target is source else ("source", "target"))
    made = ArraySetup(settings=settings, source=source, target=target, data=data, names=(names[0], names[1]),
                      key=key, pieces=MicroBatch(reader.rows), reader=reader, notes=_list_notes(reader))
    try:
        made.check_memory("write indices='cka@flatten' for wide arrays, give fewer, or jackknife=0")
    except AlignmentError as e:
        raise SutureError(f"{str(e).partition(';')[0]}; write kinds='tokens:1,14x14' for patches after a "
                          "class token, or indices such as cka@pool") from e
    return made


def _list_notes(reader: ArrayReader) -> Sequence[str]:
    sides = [reader.source] + [reader.target] * (reader.target is not reader.source)
    lists = [a.where for s in sides for a in s.arrays if a.looks_cut]
    return [f"{', '.join(lists)}: each array of the list is read as one example of tokens (T, D); if they "
            "are batches (n, D), write numpy.concatenate(list)"] if lists else []


def _measure(setup: ArraySetup) -> Findings:
    """Run the pass over the arrays, and compute the indices of all cells."""
    published, counts = compute_published(setup)
    found = describe_indices(setup, setup.pieces.run(lambda: _collect(setup)), published, counts)
    seen = {name: data.seen.as_record() for name, data in setup.data.watched.items() if data.seen is not None}
    labels = setup.reader.labels
    return found.add(Findings(arrays={} if labels is None else {"labels": labels.numpy()}, stages=[STAGE],
                              computed={STAGE: get_time()}, seen=seen))


def _collect(setup: ArraySetup) -> Accumulators:
    accumulators = setup.make_accumulators()
    collect_moments(setup.data.fit, Filling(setup, accumulators), setup.settings.tell_progress, STAGE)
    return accumulators


def _assemble(setup: ArraySetup, found: Findings) -> Comparison:
    special = {"settings": select_settings(setup.settings.as_record(False)), "excluded": []}
    return build_comparison(setup, found, [*setup.notes, *setup.pieces.notes], special,
                            setup.source is setup.target)
