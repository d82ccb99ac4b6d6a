"""Permutations of whole blocks of rows with others of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from suture.numbers import Exchange, choose_groups


def test_rows_of_a_block_stay_together_and_in_order() -> None:
    blocks = np.array([0, 1, 0, 1, 2, 2])
    exchange = Exchange.of(blocks, np.zeros(6, int))
    assert exchange.rows.tolist() == list(range(6))
    assert exchange.permutations == pytest.approx(6)
    seen = set()
    for order in exchange.draw(60, 0):
        partner = {int(blocks[row]): int(blocks[by]) for row, by in zip(exchange.rows, order, strict=True)}
        for one, other in partner.items():  # the first row of a block is replaced by a first row
            assert order[blocks == one].tolist() == np.flatnonzero(blocks == other).tolist()
        seen.add(tuple(partner.values()))
    assert len(seen) == 6


@pytest.mark.parametrize(("blocks", "kinds", "rows"), [
    ([0, 0, 1, 1, 2], [0] * 5, [0, 1, 2, 3]),  # another size
    ([0, 1, 2, 3], [7, 7, 8, 9], [0, 1]),  # another class
    ([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 0], [0, 1, 2, 3]),  # the same classes in another order
    ([0, 1, 2], [0, 1, 2], []),
])
def test_blocks_change_places_with_their_kind_alone(blocks: list[int], kinds: list[int],
                                                    rows: list[int]) -> None:
    exchange = Exchange.of(np.array(blocks), np.array(kinds))
    assert exchange.rows.tolist() == rows
    for order in exchange.draw(10, 1):
        assert sorted(order.tolist()) == rows
        assert np.array_equal(np.array(kinds)[order], np.array(kinds)[rows])


def test_the_same_seed_draws_the_same() -> None:
    exchange = Exchange.of(np.arange(9), np.zeros(9, int))
    one, two, other = ([o.tolist() for o in exchange.draw(3, seed)] for seed in (5, 5, 6))
    assert one == two != other


def test_groups_are_chosen_whole() -> None:
    groups = np.repeat(np.arange(50), 3)
    sample = choose_groups(groups, 30, 0)
    kept = np.concatenate([sample.offer(k)[0] + start for start, k in ((0, 70), (70, 80))])
    assert sample.numbers.tolist() == kept.tolist()
    assert len(kept) == 30
    assert set(np.unique(groups[kept], return_counts=True)[1]) == {3}
    assert len(choose_groups(groups, 1, 0).chosen) == 6
