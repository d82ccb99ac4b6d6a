"""The laws of families hold for suture's own and find wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from suture import testing
from suture.stitching import FAMILIES, Family
from suture.stitching.families import Full, Orthogonal, Rank

TEXTS = [text for family in FAMILIES.values() for text in family.examples]


@pytest.mark.parametrize("text", [t.replace("rank:8", "rank:2") for t in TEXTS])
def test_every_family_keeps_its_laws(text: str) -> None:
    testing.verify(testing.family_laws(text))


def test_widths_that_differ() -> None:
    testing.verify(testing.family_laws("orthogonal", widths=(3, 5)))
    testing.verify(testing.family_laws("full", widths=(5, 3)))


class Shrunk(Full):
    """Solves for nine tenths of the best map."""

    def solve(self, pair: Any) -> torch.Tensor:
        return 0.9 * super().solve(pair)


class TooWide(Rank):
    """Solves for a map of full rank."""

    def solve(self, pair: Any) -> torch.Tensor:
        return Full().solve(pair)


class Boastful(Full):
    """Claims an invariance to every change of the target."""

    invariances = (Full.invariances[0], Full.invariances[1] | {"linear"})


class Silent(Full):
    """Does not claim that it is unchanged by translations."""

    invariances = (Full.invariances[0] - {"translation"}, Full.invariances[1])


class Wide(Orthogonal):
    """Draws square maps whatever the widths."""

    def draw(self, p: int, q: int, generator: torch.Generator) -> torch.Tensor:
        return super().draw(q, q, generator)


@pytest.mark.parametrize(("family", "law"), [
    (Shrunk(), "optimum"), (Shrunk(), "training"), (TooWide(2), "membership"),
    (Boastful(), "linear of the target"), (Silent(), "translation of the source"), (Wide(), "widths"),
])
def test_a_wrong_family_is_found(family: Family, law: str) -> None:
    with pytest.raises(AssertionError) as found:
        testing.verify(testing.family_laws(family))
    assert any(line.startswith(f"{law}: ") for line in str(found.value).splitlines())
