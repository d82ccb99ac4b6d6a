"""Tests of measures on the networks of a study's file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from suture._base import Progress, SutureError, checked, log_event, make_unknown_error, replace_file
from suture.ood import DEFAULT_OOD
from suture.results import render_png
from suture.studies.following.event_log import keep_log
from suture.studies.measure_tests.call import run_validation
from suture.studies.measure_tests.options import ValidateOptions
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.measure_tests.trained_groups import ALTERATIONS, train_groups
from suture.studies.measure_tests.validation import PAGE, Validation
from suture.studies.network_study.call import explain_interruption
from suture.studies.network_study.options import StudyOptions
from suture.studies.population.sources import TrainedNetwork
from suture.studies.running.store import LOG_FILE, StudyStore
from suture.studies.spec.study_file import StudyFile
from suture.studies.spec.training import train_missing

_BY_MEASURES = ("methods", "indices", "pairs")
FIGURE = "validation.png"


@checked
def validate_file(spec: StudyFile, groups: Sequence[str] = (), progress: Progress | None = None,
                  **tests: Any) -> Validation:
    """Train or load the networks of a study's file, test measures on them, and write table, page and figure.

    Methods, indices and pairs of the file are those of a study, and not used. Results lie in the folder
    ``validation`` of the study, and the same call goes on from there.

    Args:
        groups: kinds of groups of `suture.studies.train_groups` to train and test beside, with the network
            and recipe of the file's first training.
        progress: called as ``progress(stage, done, total)``.
        tests: options of `suture.validate`: measures, controls, by, ...

    Raises:
        SutureError: as `suture.validate`; groups of networks that are not trained here.
    """
    folder = spec.folder / "validation"
    for kind in groups:
        if kind not in ALTERATIONS:
            raise make_unknown_error("kind of groups", kind, ALTERATIONS)
    with explain_interruption(folder):
        given = spec.open()
        first = next((s for s in given.networks.values() if isinstance(s, TrainedNetwork)), None)
        if groups and first is None:
            raise SutureError("groups need a network that the study trains, got none; write train= in its "
                              "file")
        StudyStore.open(spec.folder)
        with keep_log(spec.folder / LOG_FILE):
            log_event(f"validates: {spec.file.path}")
            networks = train_missing(spec, given, progress)
        kept = {f.name: getattr(given, f.name) for f in fields(StudyOptions) if f.name not in _BY_MEASURES}
        kept |= {"networks": networks, "folder": folder, "progress": progress,
                 "ood": None if given.ood is DEFAULT_OOD else given.ood}
        options = ValidateOptions(**kept, **tests)
        made = run_validation(options)
        for kind in groups:
            made = made.add(_test_groups(spec, given, options, first, kind))
        return write_validation(made, folder)


def _test_groups(spec: StudyFile, given: StudyOptions, options: ValidateOptions,
                 first: TrainedNetwork | None, kind: str) -> Iterable[TestOutcome]:
    """Return the outcomes of one kind of groups, which are trained first."""
    assert first is not None  # as groups were asked for
    images = spec.load_images(None)
    made = train_groups(kind, first.name, images, first.recipe, folder=spec.folder / "networks",
                        progress=options.tell_progress)
    folder = None if options.folder is None else Path(options.folder) / f"groups-{kind.replace(' ', '-')}"
    return run_validation(replace(options, networks=made.networks, data=made.data, test=made.test,
                                  about=made.about, by=(kind,), controls=(), function=None, layers=None,
                                  folder=folder)).list_outcomes(kind)


def write_validation(made: Validation, folder: Path) -> Validation:
    """Write the table, the page and the figure of a validation into a folder."""
    made.save(folder)
    made.report(folder / PAGE)
    replace_file(folder / FIGURE, render_png(made.plot(), 130))
    return made
