"""An experiment: its studies, its claims, its tables and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from suture._base import Progress
from suture.studies.experiments.claims import Outcome
from suture.studies.experiments.record import Found, Record
from suture.studies.spec.study_file import StudyFile

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Part:
    """One file of an experiment.

    Attributes:
        name: "" for the only or first file, such as E5.toml, and "back" for E5-back.toml.
        spec: what the file says, with the folder and the engine of this run.
        progress, on_result: as for `suture.study`.
    """

    name: str
    spec: StudyFile
    progress: Progress | None = None
    on_result: Any = None

    def keep_detectors(self) -> Part:
        """Return the part with trained detectors kept in its folder, which comparisons share."""
        ood = self.spec.settings.detection
        if ood is None or ood.store is not None or self.spec.settings.ood is None:
            return self
        settings = replace(self.spec.settings, ood=replace(ood, store=str(self.spec.folder / "detectors")))
        return replace(self, spec=replace(self.spec, settings=settings))


class Experiment(ABC):
    """One experiment of the paper, or of ours.

    Attributes:
        name: such as "E1", and that of its files.
        title: in a few words.
        question: that it answers.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]

    def compares(self, part: str) -> bool:
        """Return True if a part compares the pairs of networks that its file names."""
        return False

    @abstractmethod
    def run(self, part: Part) -> Found:
        """Run one part, or go on with it, and return what it has found."""

    @abstractmethod
    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        """Return what the record says of each claim."""

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        """Return the tables of the page, by title."""
        return {}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        """Return functions that draw the figures of the page, by file name."""
        return {}

    def describe(self, record: Record) -> Sequence[str]:
        """Return sentences for the reader between the claims and the tables."""
        return ()
