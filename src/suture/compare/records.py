"""Records that pass between the stages of a comparison, and the names of their arrays on the disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from suture._base import NO_KEEPER, Keeper, check_free_memory
from suture.compare.key import Key
from suture.data import Batches, MicroBatch
from suture.indices import SiteStatistics
from suture.numbers import Arrays, Estimate, Float32Array, NumericalError, get_measure
from suture.representations import Accumulators, Cell, Kind, Masks, Shape
from suture.stitching import StitchingLayer, Task

if TYPE_CHECKING:
    from suture.compare.settings import Settings
    from suture.compare.setup import Setup

ResultArray = NDArray[np.bool_] | NDArray[np.float32]
LOGGED = "compare"
"""Child of the logger `suture` that tells of single comparisons."""


class Sited(Protocol):
    """One side of a comparison: a network at its sites, or named arrays."""

    @property
    def name(self) -> str: ...

    @property
    def sites(self) -> Sequence[object]: ...

    @property
    def shapes(self) -> Sequence[Shape]: ...

    def front(self, inputs: Any) -> list[Tensor]:
        """Return the representations of a batch at each site."""

    def find_masks(self, inputs: Any) -> Masks:
        """Return the masks of padding tokens in a batch."""


class CollectedData(Protocol):
    """The data that the moments are of, and those of the alignment ``paper``."""

    @property
    def fit(self) -> Batches: ...

    @property
    def paper(self) -> Batches | None: ...

    @property
    def watched(self) -> Mapping[str, Batches]:
        """Data whose passes keep digests of what they see, by name."""


@dataclass(frozen=True, kw_only=True)
class SharedSetup:
    """The part of its setup that a comparison of networks shares with one of arrays.

    Attributes:
        settings: settings of the indices and of the pass over the data.
        source, target: both sides; the same object if they are one.
        names: of the two.
        key: all that decides the numbers (`suture.compare.key`).
        pieces: examples per pass.
        keeper: keeps the state of long passes (`suture.compare.kept_run`).
    """

    settings: Settings
    source: Sited
    target: Sited
    data: CollectedData
    names: tuple[str, str]
    key: Key
    pieces: MicroBatch
    keeper: Keeper = NO_KEEPER

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of source and target sites."""
        return len(self.source.sites), len(self.target.sites)

    @property
    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return list(product(range(self.shape[0]), range(self.shape[1])))

    def make_accumulators(self) -> Accumulators:
        """Return the empty accumulators of all cells."""
        return Accumulators(self.source.shapes, self.target.shapes, self.settings.accumulator_settings,
                            self.settings.alignment, same=self.source is self.target)

    def check_memory(self, instead: str) -> None:
        """Check that the sums of all cells fit into the memory of the device; `instead` is the advice."""
        check_free_memory(self.make_accumulators().nbytes_planned, self.settings.torch_device,
                          "the sums of all cells", instead)


class FittedMap(NamedTuple):
    """Affine map of one cell, weight (q, p) and bias (q,), in the precision it was solved in."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Fitted:
    """Maps of one method by cell, and the reason for each cell without one."""

    maps: Mapping[Cell, FittedMap]
    failed: Mapping[Cell, str]

    def make_layers(self, setup: Setup) -> tuple[dict[Cell, StitchingLayer], Mapping[Cell, str]]:
        """Return the stitching layers with these maps, on the device, and the reasons of cells without one.

        A map that cannot be split into the parts of its family makes no layer.
        """
        layers, failed = {}, dict(self.failed)
        for c, m in self.maps.items():
            try:
                layers[c] = setup.make_layer(c).set(*m).to(setup.settings.torch_device)
            except NumericalError as e:
                failed[c] = str(e)
        return layers, failed


class ScoreRow(NamedTuple):
    """Value of a measure in one cell, from `n` rows, examples or batches; `mark` says why not to trust it."""

    i: int
    j: int
    measure: str
    value: Estimate
    n: int
    mark: str = ""


@dataclass(frozen=True)
class Findings:
    """Findings of the finished stages.

    Attributes:
        rows: rows of the table, as saved.
        arrays: arrays, as saved.
        notes: sentences for the reader.
        counts: ``n_fit``, ``n_test`` and ``n_paper`` examples; also the words of chance.
        failed: cells without a stitched network, with the reason.
        ood: conventions and quality of the detectors.
        stages: names of the finished stages.
        computed: time of each stage, ISO.
        seen: what the passes saw of the data, by their name.
        nulls: methods of the nulls of indices, and reasons for missing ones.
        reuse: notes on an earlier result that was taken over, or not.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    arrays: Arrays = field(default_factory=dict)
    notes: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[Cell, str] = field(default_factory=dict)
    ood: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[str] = ()
    computed: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)
    nulls: Mapping[str, Any] = field(default_factory=dict)
    reuse: Sequence[str] = ()

    def add(self, new: Findings) -> Findings:
        """Return these findings with the new ones; a new value replaces an old one of the same name."""
        return Findings([*self.rows, *new.rows], {**self.arrays, **new.arrays}, [*self.notes, *new.notes],
                        {**self.counts, **new.counts}, {**self.failed, **new.failed},
                        {**self.ood, **new.ood}, [*self.stages, *new.stages],
                        {**self.computed, **new.computed}, {**self.seen, **new.seen},
                        {**self.nulls, **new.nulls},
                        [*self.reuse, *new.reuse])


@dataclass(frozen=True)
class Evaluation:
    """Results of the stitched networks per example, for S source sites, T target sites and N examples.

    Arrays of cells are (S, T, N), with False or NaN in cells that were not evaluated. Booleans are of
    classification; for tasks of tokens, results of predictions are float32 sums over the scored tokens of an
    example. Without labels there is no `correct` and no `ce`. With the task "none" there is nothing of
    predictions, and all other tasks have nothing of outputs. Norms are over all axes but the examples,
    without padding.

    Attributes:
        task: the scored task.
        batches: (B,) sizes of the test batches, in order.
        tokens: (N,) number of scored tokens; None for other tasks.
        own_correct: (N,) True where the target network predicts the label.
        own_ce: (N,) cross-entropy of the target network in nats.
        own_broken: number of its invalid predictions, whose largest logit is NaN or infinite.
        correct: (S, T, N) True where the stitched network predicts the label.
        agree: (S, T, N) True where it predicts the same as the target network.
        kl: (S, T, N) KL(target network's predictions || stitched network's) in nats.
        ce: (S, T, N) cross-entropy of the stitched network in nats.
        broken: per cell, as `own_broken`.
        most: occurrences of the most frequent ``label`` and ``prediction`` of the target network.
        scale: (T, N) |T|².
        spread: (T, N) |T - mean|², with the mean per channel over all rows (positions) of the test data.
        error: (S, T, N) |S - T|², the squared distance of the stitched from the native representation.
        output_scale: (N,) |t|² of the target network's output t.
        output_spread: (N,) |t - mean|², with the mean per channel over all rows of the test data.
        output_gap: (S, T, N) |o - t|², with the output o of the stitched network.
    """

    task: Task
    batches: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
    own_correct: ResultArray | None
    own_ce: Float32Array | None
    own_broken: int
    correct: ResultArray | None
    agree: ResultArray | None
    kl: Float32Array | None
    ce: Float32Array | None
    broken: dict[Cell, int]
    most: dict[str, int]
    scale: Float32Array
    spread: Float32Array
    error: Float32Array
    output_scale: Float32Array | None = None
    output_spread: Float32Array | None = None
    output_gap: Float32Array | None = None

    @property
    def examples(self) -> int:
        """Number of examples N."""
        return int(self.batches.sum())


def write_rows(setup: SharedSetup, rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    """Return the rows as they are saved."""
    return [{"source": str(setup.source.sites[r.i]), "target": str(setup.target.sites[r.j]),
             "measure": r.measure, "value": r.value.value, "low": r.value.low, "high": r.value.high, "n": r.n,
             "direction": get_measure(r.measure).direction, "reason": r.value.reason,
             "mark": r.mark} for r in rows]


def mark_rows(setup: Setup, tested: Findings, marks: Mapping[Cell, str]) -> Findings:
    """Return the evaluation of a method with the marks of its cells in all rows."""
    named = {(str(setup.source.sites[i]), str(setup.target.sites[j])): m for (i, j), m in marks.items()}
    rows = [{**r, "mark": named.get((r["source"], r["target"]), "")} for r in tested.rows]
    return replace(tested, rows=rows)


def stack_cells(of: Mapping[Any, Any], shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return values by cell, or by site, as one array, with NaN (or False) where there is none."""
    full: NDArray[Any] = np.full(shape, False if dtype is np.bool_ else np.nan, dtype)
    for key, values in of.items():
        full[key] = values
    return full


def pack_maps(method: str, fitted: Fitted) -> dict[str, NDArray[Any]]:
    """Return the arrays of fitted maps: ``METHOD.weight/I/J``, ``METHOD.bias/I/J``."""
    return {f"{method}.{part}/{i}/{j}": t.detach().cpu().numpy() for (i, j), m in fitted.maps.items()
            for part, t in m._asdict().items()}


def unpack_maps(method: str, arrays: Arrays, failed: Mapping[Cell, str]) -> Fitted:
    """Return the fitted maps from the arrays of `pack_maps`."""
    start = f"{method}.weight/"
    cells = [tuple(map(int, k.removeprefix(start).split("/"))) for k in arrays if k.startswith(start)]
    maps = {(i, j): FittedMap(*(torch.as_tensor(arrays[f"{method}.{part}/{i}/{j}"])
                                for part in FittedMap._fields)) for i, j in cells}
    return Fitted(maps, failed)


def pack_statistics(side: str, k: int, found: SiteStatistics) -> dict[str, NDArray[Any]]:
    """Return the spectrum of a site, and its numbers of rows, channels and constant channels."""
    return {f"{side}.spectrum/{k}": found.spectrum.cpu().numpy(),
            f"{side}.rows/{k}": np.array([found.n, found.width, found.dead], dtype=np.int64)}


def encode_shape(shape: Shape) -> dict[str, Any]:
    """Return a shape as JSON."""
    return asdict(shape) | {"kind": shape.kind.value}


def decode_shape(stored: Mapping[str, Any]) -> Shape:
    """Return the shape that `encode_shape` wrote."""
    grid, rest = stored["grid"], {k: v for k, v in stored.items() if k not in ("kind", "size", "grid")}
    return Shape(Kind(stored["kind"]), size=tuple(stored["size"]),
                 grid=None if grid is None else tuple(grid), **rest)
