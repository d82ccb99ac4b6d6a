"""The public call `validate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from suture._base import Progress, SutureError, get_time, listen_to_signals, takes
from suture.numbers import Floats
from suture.studies.measure_tests.battery import function_tests, group_tests, layer_tests, specificity
from suture.studies.measure_tests.battery.control_tests import check_control, find_mistaken_direction
from suture.studies.measure_tests.control_studies import ControlStudy, read_control, run_controls
from suture.studies.measure_tests.measures import ChosenMeasures, choose_measures
from suture.studies.measure_tests.network_statistics import attenuate, find_correlation_power
from suture.studies.measure_tests.options import ValidateOptions
from suture.studies.measure_tests.population_cells import (
    PopulationCells,
    collect_cells,
    explain_missing,
    find_layers,
)
from suture.studies.measure_tests.population_outputs import (
    PopulationOutputs,
    collect_outputs,
    list_functions,
    read_hits,
)
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.measure_tests.validation import Validation
from suture.studies.network_study.call import arrange, explain_interruption, run_study
from suture.studies.network_study.compared_networks import ComparedNetworks, find_words
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.sensitivity_test.call import SensitivityOptions, sensitivity

_STAGE = "testing measures"
DIRECTION = "direction"


@takes(ValidateOptions)
def validate(given: ValidateOptions) -> Validation:
    """Test similarity measures on a population of networks.

    >>> found = suture.validate(networks, train, test, measures=["cka", "dm.relative_accuracy", my_function])
    >>> found.matrix("passed"); found.report("validation.html")

    The networks are compared pair by pair with each measure (`suture.study`), or `networks` is a `Study` that
    was made so. What every test asks, and what its numbers mean, is in docs/measures.md.

    Args:
        {options}

    Raises:
        SutureError: bad input, layers that do not correspond, or no pair that could be compared.
    """
    with listen_to_signals(), explain_interruption(given.folder):
        return run_validation(given)


def run_validation(given: ValidateOptions) -> Validation:
    """Do what `validate` does, from the record of its arguments."""
    chosen = choose_measures(given.measures)
    with_networks = not isinstance(given.networks, ComparedNetworks)
    work, options = None, None
    if with_networks:
        options = make_study_options(given, chosen)
        study: ComparedNetworks = run_study(options)
        work = arrange(options)[0]
    else:
        study = given.networks
    layers = find_layers(study, given.layers)
    names = tuple(layers)
    outputs = read_hits(study, names) if work is None else collect_outputs(work, names)
    population = _Population(given, study, layers, outputs, _find_function(given, outputs, layers))
    controls = run_controls(given, options, layers) if options is not None and len(names) > 1 else {}
    outcomes, warnings = list[TestOutcome](), list(population.warn())
    for k, name in enumerate(chosen.names):
        outcomes += population.test(name, chosen, controls, warnings)
        _report(given.tell_progress, k + 1, len(chosen.names))
    warnings += [f"{' into '.join(pair)} failed: {reason}" for pair, reason in study.failures.items()][:5]
    made = Validation.make(outcomes, names, next(iter(layers.values())), warnings,
                           {"created": get_time(), "settings": given.as_key(), "seed": given.seed,
                            "versions": study.meta.get("versions"),
                            "notes": list(study.meta.get("notes", ()))})
    if given.sensitivity:
        made = _add_sensitivity(made, given, chosen, study)
    if given.folder is not None:
        made.save(given.folder)
    return made


def _add_sensitivity(made: Validation, given: ValidateOptions, chosen: ChosenMeasures,
                     study: ComparedNetworks) -> Validation:
    """Add what the measures say of representations that are cut to their principal components."""
    if not isinstance(study, Study) or study is given.networks:
        return made.add((), ["No test of sensitivity: it needs the networks and their data."])
    shared = {f.name for f in fields(SensitivityOptions)} & {f.name for f in fields(StudyOptions)}
    kept = {name: getattr(given, name) for name in shared - {"folder", "indices", "methods"}}
    try:
        found = sensitivity(**kept, indices=chosen.indices, methods=chosen.methods, study=study)
    except SutureError as error:
        return made.add((), [f"No test of sensitivity: {error}."])
    return made.add((o for o in found.outcomes if o.measure in chosen.names), found.notes)


def make_study_options(given: ValidateOptions, chosen: ChosenMeasures) -> StudyOptions:
    """Return the options of the study that computes the measures."""
    kept = {f.name: getattr(given, f.name) for f in fields(StudyOptions)}
    folder = None if given.folder is None else Path(given.folder) / "population"
    return StudyOptions(**{**kept, "indices": chosen.indices, "methods": chosen.methods, "folder": folder,
                           "pairs": "all" if chosen.symmetric else "directed"})


@dataclass(frozen=True, eq=False)
class _Population:
    """A population whose measures are tested, with what its networks are able to do, (N, L)."""

    given: ValidateOptions
    study: ComparedNetworks
    layers: Mapping[str, tuple[str, ...]]
    outputs: PopulationOutputs
    function: Floats | None

    def warn(self) -> Iterator[str]:
        accuracies, reliability = self.outputs.accuracies, self.outputs.reliability
        if self.given.function is None and accuracies is not None and reliability <= 0:
            yield (f"The accuracies of the {len(accuracies)} networks ({accuracies.min():.3f} to "
                   f"{accuracies.max():.3f}) are closer than their binomial error: tests of function have no "
                   "power.")
        if len(self.layers) < 3:
            yield f"Intervals over networks need 3 of them, got {len(self.layers)}."

    @property
    def reliability(self) -> float:
        """Share of the variance of the function that is no noise; nan where a user gives the function."""
        return math.nan if self.given.function is not None else self.outputs.reliability

    def test(self, name: str, chosen: ChosenMeasures, controls: Mapping[str, ControlStudy],
             warnings: list[str]) -> Iterator[TestOutcome]:
        """Yield the outcomes of all tests of one measure."""
        own, seed = chosen.cells.get(name), self.given.seed
        cells = collect_cells(self.study, name, self.layers, own)
        if why := explain_missing(cells):
            warnings.append(f"{why}.")
        values = {kind: read_control(found, cells, own) for kind, found in controls.items()}
        if mistake := find_mistaken_direction(cells, values.get("pure noise")):
            warnings.append(f"{name}: {mistake}.")
            yield layer_tests.missing(DIRECTION, cells, "", math.nan, mistake)
            return
        yield layer_tests.check_self(cells, seed)
        yield layer_tests.check_correspondence(cells, layer_tests.BY_TARGET, seed)
        yield layer_tests.check_correspondence(cells, layer_tests.BY_SOURCE, seed)
        yield from layer_tests.check_depth(cells, seed)
        yield layer_tests.check_argument_order(cells)
        yield specificity.check_specificity(cells, seed)
        yield specificity.check_layer_gaps(cells)
        yield from self._test_function(cells)
        for by in self.given.by or ():
            words = find_words(self.study, by).reindex(list(cells.networks))
            yield from group_tests.check_groups(cells, list(words), by, seed)
        for kind in self.given.controls:
            yield (check_control(cells, values[kind], seed) if kind in values else layer_tests.missing(
                kind, cells, "AUROC", 0.5, "it needs several networks and their data"))

    def _test_function(self, cells: PopulationCells) -> Iterator[TestOutcome]:
        """Yield what a measure says of function: Ding's statistic, and tests 1 and 2 of ReSi."""
        seed, outputs, n = self.given.seed, self.outputs, cells.n
        power = find_correlation_power(n - 1, attenuate(function_tests.RELEVANT, self.reliability))
        if self.function is None:
            why = outputs.reason or "no function of the networks is known"
            for test, unit in ((function_tests.FUNCTION, "Spearman"), (function_tests.ACCURACIES, "Spearman"),
                               (function_tests.FUNCTION_KENDALL, "Kendall")):
                yield layer_tests.missing(test, cells, unit, 0.0, why)
        else:
            yield from function_tests.check_function(cells, self.function, self.reliability, seed)
            last = self.function[:, -1]
            yield function_tests.check_differences(cells, function_tests.ACCURACIES,
                                                   np.abs(np.subtract.outer(last, last)), power, seed)
        plain = find_correlation_power(n - 1, function_tests.RELEVANT)
        for test, found in ((function_tests.OUTPUTS, outputs.disagreement),
                            (function_tests.DIVERGENCES, outputs.divergence)):
            why = outputs.reason or "the outputs are too large"
            yield (layer_tests.missing(test, cells, "Spearman", 0.0, why)
                   if found is None else function_tests.check_differences(cells, test, found, plain, seed))


def _find_function(given: ValidateOptions, outputs: PopulationOutputs, layers: Mapping[str, tuple[str, ...]]
                   ) -> Floats | None:
    """Return what each network is able to do at each layer (N, L); None if nobody knows."""
    depth = len(next(iter(layers.values())))
    if given.function is not None:
        return list_functions(given.function, tuple(layers), depth)
    accuracies = outputs.accuracies
    return None if accuracies is None else np.repeat(accuracies[:, None], depth, axis=1)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(_STAGE, done, total)
