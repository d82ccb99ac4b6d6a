"""Bad examples: those that cannot be decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture._base import SutureError
from suture.data.sources.decoding import BadExample, ExampleKind
from suture.data.sources.stores import Store, decode_rows

MOST_TRIED = 10_000
"""Number of examples in which bad ones are counted for a message. It bounds the time to the message."""
_AT_ONCE = 64


@dataclass(frozen=True)
class BadExamples:
    """Summary of bad examples: `count` of `of` examples, with place and reason of the first."""

    count: int
    of: int
    first: str

    def __str__(self) -> str:
        return f"{self.count} of {self.of} cannot be used, the first: {self.first}"


def find_decodable(store: Store, kind: ExampleKind, rows: Tensor,
                   n: int | None = None) -> tuple[Tensor, BadExamples | None]:
    """Return up to `n` (None: all) decodable rows of `rows` (M,), with a summary of the bad ones before."""
    kept: list[int] = []
    bad, first = 0, ""
    for chunk in torch.split(rows, _AT_ONCE):
        for row, one in zip(chunk.tolist(), decode_rows(store, kind, chunk.tolist()), strict=True):
            if len(kept) == n:
                break
            if isinstance(one, BadExample):
                bad += 1
                first = first or f"{store.describe_row(row)} {one.reason}"
            else:
                kept.append(row)
        if len(kept) == n:
            break
    return torch.tensor(kept, dtype=torch.int64), BadExamples(bad, bad + len(kept), first) if bad else None


def make_bad_example_error(store: Store, kind: ExampleKind, rows: Tensor, name: str, row: int,
                           reason: str) -> SutureError:
    """Make the error for a bad example, with the number of bad ones in the first `MOST_TRIED` rows."""
    _, bad = find_decodable(store, kind, rows[:MOST_TRIED])
    counts = str(bad) if bad else f"one cannot be used: {store.describe_row(row)} {reason}"
    more = f" among its first {MOST_TRIED}" if bad and len(rows) > MOST_TRIED else ""
    return SutureError(f"bad examples in {name}{more}: {counts}; leave them out with skip_bad=True")
