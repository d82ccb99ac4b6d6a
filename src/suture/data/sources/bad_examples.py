"""Bad examples: finding, counting and reporting examples that cannot be decoded."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from suture._base import SutureError
from suture.data.sources.decoding import BadExample, ExampleKind
from suture.data.sources.prefetching import DECODE_CHUNK, count_workers, run_ahead
from suture.data.sources.stores import Store, decode_rows

MOST_TRIED = 10_000
"""Largest number of examples tried to count bad ones after the first. It bounds the time to the message."""


@dataclass(frozen=True)
class BadExamples:
    """Summary of the examples that cannot be used: `count` of `of`, with place and reason of the first."""

    count: int
    of: int
    first: str

    def __str__(self) -> str:
        return f"{self.count} of {self.of} cannot be used, the first: {self.first}"


def explain_bad_rows(store: Store, kind: ExampleKind, rows: list[int]) -> list[str]:
    """Say for each of `rows` why it cannot be decoded; "" where it can."""
    found: list[str] = []
    while len(found) < len(rows):
        try:
            decode_rows(store, kind, rows[len(found):])
            found += [""] * (len(rows) - len(found))
        except BadExample as e:
            good = rows.index(e.row, len(found)) - len(found)
            found += [""] * good + [e.reason]
    return found


def find_decodable(store: Store, kind: ExampleKind, rows: Tensor,
                   n: int | None = None) -> tuple[Tensor, BadExamples | None]:
    """Find the first `n` of `rows` that can be decoded (all: None), and summarise the bad ones on the way.

    Args:
        store, kind: the examples.
        rows: (M,) rows of the store, in the order in which they are tried.
        n: number of rows to find; fewer come back where there are not so many.
    """
    kept: list[int] = []
    bad, tried, first = 0, 0, ""
    chunks = [c.tolist() for c in torch.split(rows, DECODE_CHUNK)]
    with closing(run_ahead(lambda c: explain_bad_rows(store, kind, c), chunks, 2 * count_workers())) as found:
        for chunk, reasons in zip(chunks, found, strict=False):
            for row, why in zip(chunk, reasons, strict=True):
                if n is not None and len(kept) == n:
                    break
                tried += 1
                if why:
                    bad += 1
                    first = first or f"{store.describe_row(row)} {why}"
                else:
                    kept.append(row)
            if n is not None and len(kept) == n:
                break
    return torch.tensor(kept, dtype=torch.int64), BadExamples(bad, tried, first) if bad else None


def make_bad_example_error(store: Store, kind: ExampleKind, rows: Tensor, name: str,
                           found: BadExample) -> SutureError:
    """Make the error for a bad example that was met while reading, with the number of bad ones.

    Args:
        store, kind, rows, name: the examples that are read.
        found: the bad example. It is named if the first `MOST_TRIED` examples have no bad one.
    """
    _, bad = find_decodable(store, kind, rows[:MOST_TRIED])
    counts = str(bad) if bad else f"one cannot be used: {store.describe_row(found.row)} {found.reason}"
    more = f" among its first {MOST_TRIED}" if bad and len(rows) > MOST_TRIED else ""
    return SutureError(f"expected examples that can be decoded in {name}, got bad ones{more}: {counts}; mend "
                       "them, or leave them out with skip_bad=True")
