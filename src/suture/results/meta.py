"""The entries of a comparison's meta that results are made from, and their check where a file is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

Number = int | float | None


class _Chance(TypedDict, total=False):
    scored: Number
    hits: Number
    label: Number
    prediction: Number
    unit: str


class _Scores(TypedDict, total=False):
    thresholds: dict[str, Number]
    quality: dict[str, list[dict[str, Number]]]


class _KnownMeta(TypedDict, total=False):
    notes: list[str]
    stages: list[str]
    settings: dict[str, Any] | None
    versions: dict[str, Any] | None
    chance: _Chance | None
    ood: _Scores | None
    output: dict[str, Any] | None
    own_measures: list[dict[str, Any]]
    n_fit: int | None
    n_test: int | None
    seed: int | None
    warning: str


def check_meta(meta: Mapping[str, Any]) -> None:
    """Raise a ValueError for the first known entry of another type; unknown entries may hold anything."""
    try:
        TypeAdapter(_KnownMeta).validate_python(meta, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("meta", *first["loc"])))
        raise ValueError(f"{place}: {first['msg'].lower()}") from None
