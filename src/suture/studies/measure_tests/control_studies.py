"""Studies of negative controls in the place of the real source networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from suture._base import SutureError, clean_file_name, derive_seed
from suture.data import cut_batch
from suture.studies.controls import (
    NoiseSource,
    class_noise,
    permuted_examples,
    pure_noise,
    random_weights,
)
from suture.studies.measure_tests.battery.control_tests import ControlValues
from suture.studies.measure_tests.measures import CellMeasure, MeasuredCell, to_common
from suture.studies.measure_tests.options import ValidateOptions
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.network_study.call import arrange, run_study
from suture.studies.network_study.compared_networks import ComparedNetworks
from suture.studies.network_study.options import StudyOptions
from suture.studies.population.members import Member
from suture.studies.running.tasks import PairTask, Work

_EXAMPLES = 8
"""Examples that the shapes of a network's representations are found with."""


class NoiseSites(nn.Module):
    """A network with a site of noise for each site of another one (`suture.controls`).

    Args:
        sources: one for each site, in order.
    """

    def __init__(self, sources: Sequence[NoiseSource]) -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)

    def forward(self, *inputs: object, **named: object) -> torch.Tensor:
        return torch.stack([source(*inputs, **named) for source in self.sources]).mean(0)

    @property
    def sites(self) -> list[str]:
        """Names of its sites, in order."""
        return [f"sources.{k}.{source.site}" for k, source in enumerate(self.sources)]



@dataclass(frozen=True, eq=False)
class ControlStudy:
    """A control that stands in the place of each network, compared with a few target networks.

    Attributes:
        kind: of the control.
        study: None if it could not be made, for a `reason`.
        names: name of the control of each network.
        targets: names of the target networks.
    """

    kind: str
    study: ComparedNetworks | None
    names: Mapping[str, str]
    targets: tuple[str, ...]
    reason: str = ""


def run_controls(given: ValidateOptions, options: StudyOptions, layers: Mapping[str, tuple[str, ...]]
                 ) -> dict[str, ControlStudy]:
    """Compare each control, one for each network, with a few other networks."""
    names = tuple(layers)
    targets = names[:given.control_targets]
    found = {}
    for kind in given.controls:
        try:
            found[kind] = _run_control(kind, options, layers, targets)
        except SutureError as error:
            found[kind] = ControlStudy(kind, None, {}, targets, str(error))
    return found


def _run_control(kind: str, options: StudyOptions, layers: Mapping[str, tuple[str, ...]],
                 targets: tuple[str, ...]) -> ControlStudy:
    work = arrange(options)[0]
    members = work.members
    sites = layers[targets[0]]
    if any(layers[name] != sites for name in layers):
        raise SutureError("controls need layers of the same names in all networks")
    names = {name: name if kind == "shuffled examples" else f"{kind} {name}" for name in layers}
    networks: dict[str, Any] = {name: members[name].given for name in layers}
    changes: dict[str, Any] = {"sites": list(sites)}
    if kind == "random weights":
        networks |= {names[name]: partial(build_random, members[name], k, options.data)
                     for k, name in enumerate(layers)}
    elif kind == "shuffled examples":
        changes |= {"data": permuted_examples(options.data, options.seed, batch_size=options.batch_size)}
        if options.test is not None:
            changes |= {"test": permuted_examples(options.test, options.seed, batch_size=options.batch_size)}
    else:
        make = partial(build_noise, kind, inputs=read_inputs(work, targets[0]), sites=sites)
        first = make(members[targets[0]], seed=0, data=options.data)[0]
        # All noise goes into one output, so that each site has others beside it.
        changes |= {"sites": first.sites, "target_sites": list(sites), "allow_bypass": True}
        networks |= {names[name]: partial(make, members[name], seed=derive_seed(options.seed, names[name]),
                                          data=options.data) for name in layers}
    pairs = [(names[name], target) for target in targets for name in layers if name != target]
    folder = None if options.folder is None else (
        Path(options.folder).parent / f"controls-{clean_file_name(kind)}")
    made = run_study(replace(options, networks=networks, pairs=pairs, about=None, folder=folder,
                             on_result=None, **changes))
    return ControlStudy(kind, made, names, targets)


def read_inputs(work: Work, name: str) -> Any:
    """Return the inputs of a few examples as a network of a study gets them."""
    setup = work.set_up(PairTask((name, name), ""))
    return next(cut_batch(next(iter(setup.data.fit)), _EXAMPLES)).target


def build_random(member: Member, seed: int, like: Any = None) -> tuple[nn.Module, Any]:
    """Return a network with random weights, and its preprocessing."""
    loaded = member.open(like)
    return random_weights(loaded.network, seed), loaded.preprocessing


def build_noise(kind: str, member: Member, inputs: Any, sites: Sequence[str], seed: int, data: Any = None
                ) -> tuple[NoiseSites, Any]:
    """Return the control of noise of a network, with its preprocessing."""
    loaded = member.open(data)
    make = class_noise if kind == "class noise" else pure_noise
    parts = [make(loaded.network, inputs, site, seed=derive_seed(seed, site)) for site in sites]
    return NoiseSites(parts).eval(), loaded.preprocessing


def read_control(control: ControlStudy, cells: PopulationCells, own: CellMeasure | None) -> ControlValues:
    """Read the corresponding cells of a study of a control, (N, T, L)."""
    targets = tuple(cells.networks.index(name) for name in control.targets)
    found = np.full((cells.n, len(targets), cells.depth), np.nan)
    study = control.study
    for name, source in control.names.items():
        for t, target in enumerate(control.targets):
            if study is None or (source, target) not in study.comparisons or source == target:
                continue
            made = study.comparisons[source, target]
            for k, (s, site) in enumerate(zip(made.sources, made.targets, strict=True)):
                if own is not None:
                    value = own.compute(MeasuredCell(made, source, target, s, site))
                else:
                    value = float(made.matrix(cells.measure).to_numpy()[k, k])
                    value = math.nan if made.marks(cells.measure).to_numpy()[k, k] else value
                found[cells.networks.index(name), t, k] = to_common(cells.measure, value)
    reason = control.reason or ("" if study is None else next(iter(study.failures.values()), ""))
    return ControlValues(control.kind, found, targets, reason)
