"""The start of a comparison: copies of the networks, opened data, and early checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from torch import nn

from suture._base import SutureError, expect, summarise_error
from suture.compare.fitting.prepared_networks import OtherPreparationError, PreparedNetworks
from suture.compare.key import describe_preparation, hash_trained_network, make_key, sketch_outputs
from suture.compare.opened_data import (
    OpenedData,
    find_labelled,
    find_readout,
    open_data,
    spread_examples,
)
from suture.compare.records import SharedSetup, Sited
from suture.compare.scoring.chance import check_training_labels
from suture.compare.scoring.nulls import check_labels
from suture.compare.settings import FORWARD_DTYPES, CompareOptions, Settings
from suture.data import Batch, MicroBatch, is_same_batch, move_batch
from suture.networks import (
    Readout,
    SitedNetwork,
    choose_micro_batch,
    disable_gradients,
    open_network,
    take_first,
)
from suture.ood import Detection
from suture.representations import Alignment, Cell, Kind
from suture.stitching import ScoredOutput, StitchingLayer, Task, check_batch

if TYPE_CHECKING:
    from suture.compare.fitting.filling import Filling

OTHER_ORDER = ("the test data came in another order than in the pass before, or augmented at random, so "
               "cells could not be compared in pairs; give a test loader with shuffle=False")


@dataclass(frozen=True, kw_only=True)
class Setup(SharedSetup):
    """The input of all stages of one comparison (`SharedSetup`), with the resolved task.

    Attributes:
        source, target: the networks at their sites; the same object if one pass serves both.
        fingerprints: of the two networks.
        detection: out-of-distribution detectors; None without them.
        unfit: cells whose positions cannot be aligned or whose widths do not allow the family, with the
            reason.
        scored: what is scored of the target network's output; None without stitched networks.
        one_network: True if the target is the source network itself or its equal copy.
        self_stitching: True if it is the source network itself, on the same inputs.
        warning: sentence on labels that the target network cannot predict; usually empty.
        collected: of a pass that was run before, for many pairs at once.
    """

    source: SitedNetwork
    target: SitedNetwork
    data: OpenedData
    fingerprints: tuple[str, str]
    detection: Detection | None
    unfit: Mapping[Cell, str]
    scored: ScoredOutput | None
    one_network: bool
    self_stitching: bool
    warning: str = ""
    collected: Filling | None = None

    @property
    def micro_batch(self) -> int:
        """Number of examples per pass of a network, after the passes so far."""
        return self.pieces.most

    @property
    def task(self) -> Task:
        return Task(self.settings.task)

    def make_layer(self, cell: Cell) -> StitchingLayer:
        """Return the layer of a cell, not fitted."""
        i, j = cell
        return StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j],
                                        self.settings.alignment),
                              self.settings.affine_family, relu=self.settings.relu)

    def make_own_layer(self, j: int) -> StitchingLayer:
        """Return the layer, not fitted, that stitches the target to itself at site number `j`."""
        shape, settings = self.target.shapes[j], self.settings
        return StitchingLayer(Alignment(shape, shape, settings.alignment), settings.affine_family,
                              relu=settings.relu)


def set_up(given: CompareOptions, known: PreparedNetworks | None = None) -> Setup:
    """Prepare both networks and check the first batch.

    Args:
        known: networks that were prepared before for the same data and settings. Default: none.
    """
    given = _open_networks(given)
    try:
        return _set_up(given, known or PreparedNetworks())
    except OtherPreparationError:
        return _set_up(given, PreparedNetworks())


def _set_up(given: CompareOptions, known: PreparedNetworks) -> Setup:
    source, target = given.source, given.source if given.target is None else given.target
    opened, device = open_data(given), given.torch_device
    check_labels(given, opened)
    first = move_batch(next(iter(opened.fit)), device)
    copies = _copy_networks(source, target, first, given, known)
    labelled = find_labelled(first, opened.test, device)
    spread = (opened.whole, given.data) if labelled is first else (opened.test, given.test)
    scored = given.resolve_output(copies[-1], labelled, lambda: spread_examples(*spread, device))
    settings = given.replace_output(scored)
    if "tlm" in settings.method_names:
        check_batch(first, settings.recipe, Task(settings.task))
    a, b = _site_networks(copies, first, settings, None if scored is None else scored.readout, known)
    if "tlm" in settings.method_names and settings.recipe.objective != "match":
        _check_gradients(b)
    pieces = MicroBatch(choose_micro_batch(max(a.peak, b.peak), device))
    if settings.token_rate < 1:
        _check_share(a, b)
    sides = {"source": known.describe(source, a)}
    sides["target"] = sides["source"] if b is a else known.describe(target, b)
    prints = sides["source"]["weights"], sides["target"]["weights"]
    given_data = {"data": given.data, "test data": given.test}
    key = make_key(settings.as_key() | {"held_out": opened.held_out}, sides,
                   {name: how for name, d in given_data.items() if (how := describe_preparation(d))},
                   sketch_outputs(a, b, (first.source, first.target), known.sketch))
    names = settings.names or _choose_names(source, target)
    made = Setup(
        settings=settings, source=a, target=b, data=opened, names=(names[0], names[1]), key=key,
        pieces=pieces, fingerprints=prints, unfit=_find_unfit(a, b, settings),
        detection=_set_up_detection(settings, b, pieces, key, given.data), scored=scored,
        self_stitching=target is source and first.source is first.target,
        one_network=target is source or (prints[0] == prints[1] and type(source) is type(target)))
    made.check_memory("give fewer sites, jackknife=0, or indices of one alignment at a time")
    if settings.method_names:
        _look_ahead(made, first)
        made = replace(made, warning=check_training_labels(made, first))
    return made


def _open_networks(given: CompareOptions) -> CompareOptions:
    """Return the arguments with the networks that are in wrappers, with weights that were offloaded."""
    source, target = open_network(given.source, "source"), given.target
    if target is not None:
        target = source if target is given.source else open_network(target, "target")
    same = source is given.source and target is given.target
    return given if same else replace(given, source=source, target=target)


def _copy_networks(source: nn.Module, target: nn.Module, first: Batch, settings: Settings,
                   known: PreparedNetworks) -> list[nn.Module]:
    """Return private copies of the source and, if it is another network, of the target."""
    copies = [known.copy(source, first.source, settings.torch_device, "source")]
    if target is not source:
        copies.append(known.copy(target, first.target, settings.torch_device, "target"))
    return copies


def _site_networks(copies: Sequence[nn.Module], first: Batch, settings: Settings,
                   readout: Readout | None, known: PreparedNetworks) -> tuple[SitedNetwork, SitedNetwork]:
    """Find the sites of the networks; return one object twice if one pass serves both."""
    how: dict[str, Any] = {"allow_bypass": settings.allow_bypass, "checks_padding": True,
                           "autocast": FORWARD_DTYPES[settings.forward]}
    theirs, same = settings.target_sites, len(copies) == 1 and first.source is first.target
    read = readout if same else find_readout(copies[0], first.source, readout)
    a = known.cut(copies[0], first.source, settings.sites, name="source", readout=read, **how)
    shared = same and theirs is None
    b = a if shared else known.cut(copies[-1], first.target, settings.sites if theirs is None else theirs,
                                   name="target", readout=readout, **how)
    known.fold({copies[0]: first.source, copies[-1]: first.target}, {s.path for s in (*a.sites, *b.sites)})
    return a, b


def _set_up_detection(settings: Settings, target: SitedNetwork, pieces: MicroBatch, key: dict[str, Any],
                      data: Any) -> Detection | None:
    """Return the detectors to fit; None without them."""
    if settings.detection is None:
        return None
    return Detection(settings.detection, target, settings.torch_device, pieces, settings.seed,
                     hash_trained_network(key, settings.forward), data)


def _look_ahead(setup: Setup, first: Batch) -> None:
    """Run the late steps on the first examples, so that bad input does not end a long run."""
    task, test = setup.task, setup.data.test
    if setup.detection is not None:
        assert setup.scored is not None
        setup.detection.check_task(task, setup.scored.readout.kind)
        setup.detection.check_user_inputs(Batch(take_first(first.source), take_first(first.target), None))
    batch, again = (move_batch(next(iter(test)), setup.settings.torch_device) for _ in range(2))
    methods = setup.settings.method_names
    passes = len(methods) + ("tlm" in methods) * (setup.settings.recipe.seeds - 1)
    if passes > 1 and not is_same_batch(batch, again):
        raise SutureError(OTHER_ORDER)
    with disable_gradients(), report_network_errors(test.name, RuntimeError, IndexError):
        if setup.source is not setup.target or batch.source is not batch.target:
            setup.source.front(take_first(batch.source))
        output = setup.target.run_full(take_first(batch.target)).output
    if task is not Task.NONE:
        rows = task.find_rows(setup.target.view_output(batch.target), batch.labels)
        task.check_labels(rows, task.extract_logits(output))


def _check_gradients(target: SitedNetwork) -> None:
    """Check that task loss matching can train through every tail; nothing else needs a gradient."""
    without = next((i.site for i in target.infos if not i.has_gradient), None)
    expect(without is None, "a gradient of the target's output for task loss matching",
           f"none at site {str(without)!r}", "write methods=['dm'] (for stitch: method='dm')")


def _check_share(*networks: SitedNetwork) -> None:
    """Check that the same share of tokens can be drawn at every site.

    Otherwise averages and resizes would differ from the stitching layer's input.
    """
    shapes = [(n.name, site, shape) for n in networks for site, shape in zip(n.sites, n.shapes, strict=True)]
    for name, site, shape in shapes:
        first_shape = shapes[0][2]
        if (shape.kind is not Kind.TOKENS or shape.size != first_shape.size
                or shape.sequence != first_shape.sequence):
            raise SutureError(f"token_rate below 1 needs equally many tokens at every site, got {shape} at "
                              f"{name} site {str(site)!r}; leave it out, or write token_rate=1")


@contextmanager
def report_network_errors(data: str, *kinds: type[Exception]) -> Iterator[None]:
    """Report a network's error on data, such as a token id without an embedding, in one line."""
    try:
        yield
    except kinds as e:
        raise SutureError(f"a network fails on the {data}: {summarise_error(e)}; give data like "
                          "the first examples") from e


def make_nan_error(network: Sited, k: int, batch: int, data: str) -> SutureError:
    """Make the error for NaN or inf at site `k` in a batch of the data."""
    return SutureError(f"NaN or inf at {network.name} site {str(network.sites[k])!r} in batch {batch} of the "
                       f"{data}; check inputs and weights, or leave this site out")


def _find_unfit(source: SitedNetwork, target: SitedNetwork, settings: Settings) -> dict[Cell, str]:
    """Find the cells without a stitching layer; at least one cell must remain."""
    if not settings.method_names:
        return {}
    unfit: dict[Cell, str] = {}
    for i, j in product(range(len(source.sites)), range(len(target.sites))):
        try:
            Alignment(source.shapes[i], target.shapes[j], settings.alignment)
            settings.affine_family.check(source.shapes[i].width, target.shapes[j].width)
        except SutureError as e:
            unfit[i, j] = str(e)
    if len(unfit) == len(source.sites) * len(target.sites):
        raise SutureError(next(iter(unfit.values())))
    return unfit


def _choose_names(source: nn.Module, target: nn.Module) -> tuple[str, str]:
    """Return the names of two networks in tables: their classes, made distinct if equal."""
    a, b = type(source).__name__, type(target).__name__
    return (f"{a} (source)", f"{b} (target)") if a == b and source is not target else (a, b)
