"""The public call `probe`, and the probes of a setup, which other studies use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import torch
from pydantic import InstanceOf, PlainValidator, SkipValidation
from torch import Tensor
from typing_extensions import Doc

from suture._base import Count, ProgressOption, SutureError, expect, options, takes
from suture.compare import CompareOptions, Setup, set_up
from suture.networks import Network, SiteSpec
from suture.numbers import Bools
from suture.studies.probes.principal_components import Basis, choose_ranks, read_ranks
from suture.studies.probes.recipe import ProbeRecipe
from suture.studies.probes.result import COLUMNS, Probes, tabulate_site
from suture.studies.probes.site_pass import Ranks, SiteExamples, SitePass, check_features
from suture.studies.probes.training import (
    CutFeatures,
    ProjectedFeatures,
    StackedFeatures,
    train_probes,
)
from suture.studies.probes.whole_batches import pass_whole_batches

FEW_STEPS = 500
"""Steps of a training that is noted as short: the paper's has 7,820. On the digits (docs/sensitivity.py), 210
at its rate leave an early layer at an accuracy of 0.12, and 840 at ten times the rate bring it to 0.90."""
BasisKind = Literal["data", "batch"]
BASIS = Doc('Principal components: of all rows of the data ("data"), or of each batch by itself ("batch", as '
            "in the published code of Balogh and Jelasity 2025; test data are then cut by their own "
            "components).")


@options
class ProbeOptions:
    """Arguments of `suture.probe`."""

    network: Annotated[Network, Doc("Network whose sites are probed. It is not changed.")]
    data: Annotated[Any, Doc("Labelled examples that the probes are trained on, as for `suture.compare`.")]
    test: Annotated[Any, Doc("Labelled examples for their accuracy. None: `data` again, with a note.")] = None
    sites: Annotated[SiteSpec, Doc("Sites, as for `suture.compare`. None: the repeated blocks.")] = None
    ranks: Annotated[Any, PlainValidator(read_ranks), Doc(
        'Ranks that the representations are cut to: numbers, or "graded" up to the width of each site. The '
        "whole width is always probed. None: the whole width alone.")] = None
    recipe: Annotated[InstanceOf[ProbeRecipe], Doc(
        "Recipe of the training; `ProbeRecipe.paper()` adds crops and flips.")] = ProbeRecipe()
    basis: Annotated[BasisKind, BASIS] = "data"
    examples: Annotated[Count | None, Doc("Number of first examples of the data. None: all.")] = None
    batch_size: Annotated[Count, Doc("Examples per pass, for data that are no loader.")] = 256
    device: Annotated[str | torch.device, SkipValidation, Doc(
        "Device of the network; probes are trained on the CPU.")] = "auto"
    progress: ProgressOption = None


@takes(ProbeOptions)
def probe(given: ProbeOptions) -> Probes:
    """Train linear probes of all sites at all ranks together, and return their accuracies.

    One pass over `data` and one over `test` give the features. At a rank, every position of the
    representation is cut to its first principal components before it is averaged.

    >>> suture.probe(network, train, test, ranks="graded").table

    Args:
        {options}

    Raises:
        SutureError: bad input, data without labels (N,), a rank above all widths.
    """
    setup = set_up(CompareOptions(given.network, data=given.data, test=given.test, sites=given.sites,
                                  methods=(), indices=(), ood=None, examples=given.examples,
                                  batch_size=given.batch_size, device=given.device, allow_bypass=True,
                                  progress=given.progress, seed=given.recipe.seed))
    setup = pass_whole_batches(setup) if given.basis == "batch" else setup
    widths = [s.width for s in setup.source.shapes]
    ranks = [(w,) for w in widths] if given.ranks is None else choose_ranks(given.ranks, widths)
    cuts = any(len(of) > 1 for of in ranks)
    collected = SitePass(setup, folds=int(cuts), recipe=given.recipe,
                         batch_ranks=ranks if given.basis == "batch" else None)
    fit = collected.run(setup.data.fit, "moments")
    bases = [fit.find_basis(j) for j in range(len(ranks))] if cuts and given.basis == "data" else None
    return train_and_test(setup, given.recipe, ranks, bases, fit)


def train_and_test(setup: Setup, recipe: ProbeRecipe, ranks: Ranks, bases: list[Basis] | None,
                   fit: SiteExamples) -> Probes:
    """Train the probes of a setup's source, and test them.

    Args:
        ranks: of each site, the whole width first.
        bases: principal components of each site; None if the features are not cut, or were cut before.
        fit: features of the fitting data without augmentation.
    """
    import pandas as pd

    check_features(recipe, setup)
    network, names = setup.source, [str(s) for s in setup.source.sites]
    stacked = bool(fit.features) and fit.features[0].ndim == 3
    run = SitePass(setup, recipe=recipe, batch_ranks=ranks if stacked else None)
    tested = run.run(setup.data.test, "test data") if setup.data.held_out else fit
    labels, wanted = (_check_labels(of.labels, name) for of, name in ((fit, "data"), (tested, "test data")))
    classes = int(max(labels.max(), wanted.max())) + 1

    def arrange(of: SiteExamples) -> list[CutFeatures]:
        return [_arrange_features(x, None if bases is None else bases[j], ranks[j])
                for j, x in enumerate(of.features)]

    plain, generator = arrange(fit), torch.Generator().manual_seed(recipe.seed)

    def read(epoch: int) -> tuple[list[CutFeatures], Tensor]:
        if recipe.augmentation is None:
            return plain, labels
        new = run.run(setup.data.fit, f"augmented data, epoch {epoch + 1}", generator)
        return arrange(new), _check_labels(new.labels, "data")

    probes = train_probes(names, read, classes, recipe, setup.settings.tell_progress)
    new = arrange(tested)
    rows, hits = list[dict[str, Any]](), dict[tuple[str, int], Bools]()
    for j, (site, made) in enumerate(zip(names, probes, strict=True)):
        found, fitted = made.find_hits(new[j], wanted), made.find_hits(plain[j], labels)
        kind = "class token" if recipe.reads_token(network.shapes[j]) else "mean over positions"
        rows += tabulate_site(site, ranks[j], found, fitted, kind)
        hits |= {(site, r): found[k] for k, r in enumerate(ranks[j])}
    chance = float(torch.bincount(wanted).max()) / len(wanted)
    return Probes(pd.DataFrame(rows, columns=list(COLUMNS)), hits, chance,
                  tuple(_list_notes(setup, recipe, len(labels))))


def _list_notes(setup: Setup, recipe: ProbeRecipe, examples: int) -> Iterator[str]:
    if not setup.data.held_out:
        yield "no test data were given: probes are tested on the data that they were trained on"
    steps = recipe.epochs * math.ceil(examples / recipe.batch_size)
    if steps < FEW_STEPS:
        yield (f"probes were trained for {steps} steps, and probably have not converged (train_accuracy); "
               "give more epochs, or a larger lr")


def _arrange_features(features: Tensor, basis: Basis | None, ranks: tuple[int, ...]) -> CutFeatures:
    if features.ndim == 3:
        return StackedFeatures(features)
    return StackedFeatures(features[None]) if basis is None else ProjectedFeatures.of(features, basis, ranks)


def _check_labels(labels: Tensor | None, name: str) -> Tensor:
    """Return the labels as class numbers."""
    if labels is None:
        raise SutureError(f"expected {name} with labels for the probes, got none; give (inputs, labels)")
    whole = not (labels.is_floating_point() or labels.is_complex())
    expect(labels.ndim == 1 and whole, "one class number (N,) for each example", labels,
           "leave the probes out")
    expect(int(labels.min()) >= 0, "labels of at least 0", int(labels.min()), "leave out those examples")
    return labels.long()
