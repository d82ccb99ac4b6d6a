"""The data of a study's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from typing_extensions import Doc

from suture import specs, zoo
from suture._base import Count, expect, options
from suture.networks import Recipe


@options
class DataTable(specs.ReadingOptions):
    """The data of a file."""

    spec: Annotated[str | None, Doc("Data, as `suture compare --data` takes them.")] = None
    fitting_size: Annotated[Count | None, Doc(
        "Number of the training examples that are compared on, as even over the classes as they allow, where "
        "networks are trained on all of them. Default: all.")] = None

    def __post_init__(self) -> None:
        expect(bool(self.spec), "spec of the data", "none", 'write spec = "digits", or another')

    @classmethod
    def extend(cls, base: Mapping[str, Any], /, **given: Any) -> DataTable:
        """Make the table of what differs from another one."""
        return cls(**{**base, **given})

    def load(self, seed: int) -> tuple[Any, Any]:
        """Return training and test data."""
        return self.load_data(self.spec or "", seed)

    def draw_fitting(self, data: Any, seed: int) -> Any:
        """Draw the training examples that are compared on."""
        if self.fitting_size is None:
            return data
        expect(callable(getattr(data, "subset", None)), "data with subset(n, seed) beside fitting_size",
               type(data).__name__, "leave it out")
        return data.subset(self.fitting_size, seed)

    @property
    def usual(self) -> Recipe:
        """The recipe of the data, for networks that name none."""
        return zoo.DIGITS_RECIPE if self.spec == "digits" else Recipe.paper()
