"""Options: types, bounds and words of a field, and the functions and signatures made from them."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from typing_extensions import Doc

from suture._base import (
    Count,
    Positive,
    Real,
    Seed,
    Share,
    SutureError,
    Whole,
    checked,
    keyword_options,
    list_options,
    make_unknown_error,
    options,
    takes,
)


@keyword_options
class Shared:
    kind: Annotated[Literal["plain", "rich"], Doc("Kind of thing.")] = "plain"
    seed: Seed = 0


@options
class Made(Shared):
    """A record.

    Attributes:
        {options}
    """

    count: Annotated[Count, Doc("Number of things. " * 12)]
    rate: Positive = 0.5
    share: Share | None = None
    flag: bool = False
    weight: torch.Tensor | None = None
    level: Real = 0.0
    step: Whole = 0

    def __post_init__(self) -> None:
        if self.count == 13:
            raise SutureError("thirteen is refused")


@takes(Made)
def run(given: Made) -> str:
    """Run.

    Args:
        {options}
    """
    return f"{given.count} {given.kind}"


@pytest.mark.parametrize(("name", "value", "words"), [
    ("count", 0, "at least 1"), ("count", 2.5, "a whole number"), ("count", "3", "a whole number"),
    ("count", True, "a whole number"), ("count", None, "a whole number"), ("rate", 0, "above 0"),
    ("rate", float("nan"), "a finite number"), ("rate", float("inf"), "a finite number"),
    ("rate", "1", "a finite number"), ("rate", True, "a finite number"), ("share", 1, "below 1"),
    ("flag", "no", "True or False"), ("flag", 1, "True or False"), ("weight", [1.0], "Tensor"),
    ("kind", 3, "'plain' or 'rich'"), ("seed", -1, "at least 0"), ("seed", 2**64, "below"),
    ("level", float("-inf"), "a finite number"), ("step", 0.5, "a whole number"),
])
def test_a_bad_value_is_one_line_that_names_the_option_and_the_value(name: str, value: Any,
                                                                     words: str) -> None:
    for make in (Made, run):
        with pytest.raises(SutureError) as error:
            make(**{"count": 1, name: value})
        assert str(error.value).startswith(f"{name}: expected ")
        assert words in str(error.value)
        assert f"got {value!r}" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_numbers_of_any_library_are_taken(value: Any) -> None:
    assert type(Made(value).count) is int
    assert Made(value, rate=value).rate == 3.0
    assert Made(1, rate=np.float32(0.5), share=np.float64(0.25)) == Made(1, 0.5, 0.25)


@pytest.mark.parametrize(("name", "near"), [("layers", "sites"), ("verbose", "progress"), ("val", "test")])
def test_names_that_other_libraries_have(name: str, near: str) -> None:
    error = make_unknown_error("option", name, ["names", "groups", near, "task"])
    assert str(error).endswith(f"{name!r}; nearest: {near}")
    assert near not in str(make_unknown_error("option", name, ["names"]))


def test_unknown_names_choices_and_missing_options() -> None:
    with pytest.raises(SutureError, match="unknown option 'cuont'; nearest: count"):
        Made(1, cuont=3)  # type: ignore[call-arg]
    with pytest.raises(SutureError, match="unknown kind 'rihc'; nearest: rich"):
        run(1, kind="rihc")  # type: ignore[arg-type]
    with pytest.raises(SutureError, match="expected count, got none"):
        run()  # type: ignore[call-arg]
    with pytest.raises(SutureError, match="thirteen"):
        replace(Made(1), count=13)


def test_records_are_frozen_and_plain_dataclasses() -> None:
    made = Made(2, seed=5)
    with pytest.raises(FrozenInstanceError):
        made.count = 3  # type: ignore[misc]
    assert asdict(made)["seed"] == 5
    assert replace(made, rate=2).rate == 2.0


def test_signature_and_docstring_come_from_the_fields() -> None:
    parameters = inspect.signature(run).parameters
    assert list(parameters) == [o.name for o in list_options(Made)]
    assert parameters["count"].default is inspect.Parameter.empty
    assert parameters["kind"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["rate"].default == 0.5
    assert inspect.signature(run).return_annotation is str
    for doc in (run.__doc__, Made.__doc__):
        assert doc is not None
        assert "    kind: Kind of thing." in doc
        assert "    count: Number of things. " in doc
        assert "{options}" not in doc
        assert max(map(len, doc.splitlines())) <= 106


def test_the_arguments_of_a_function_are_checked() -> None:
    @checked
    def repeat(word: str, times: Count = 1) -> str:
        return word * times

    assert repeat("ab", np.int32(2)) == "abab"
    with pytest.raises(SutureError, match="times: expected at least 1, got 0"):
        repeat("ab", 0)
    with pytest.raises(SutureError, match="word: expected a string, got 3"):
        repeat(3)  # type: ignore[arg-type]
