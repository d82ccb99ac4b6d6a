"""Examples that cannot be used: counted, named, left out on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from suture import SutureError
from suture.data.sources import bad_examples as checking
from suture.data.sources import open_source
from suture.data.sources.bad_examples import find_decodable
from suture.data.sources.sampling import draw_balanced_order
from tests.support.pictures import Counted, as_folder, as_parquet, encoded, made_of, pictures


def spoilt_folder(root: Path) -> tuple[Path, str]:
    as_folder(root, pictures(30))
    for name in ("ant/003.png", "cat/025.png"):
        (root / name).write_bytes(b"GIF89a, but no more")
    return root, f"{root}/ant/003.png"


def spoilt_parquet(root: Path) -> tuple[Path, str]:
    images: list[bytes | None] = [encoded(p) for p, _ in pictures(30)]
    images[3], images[25] = None, b"no image"
    return (as_parquet(root / "all.parquet", images, [y for _, y in pictures(30)]),
            "all.parquet, row 3 is missing")


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
def test_bad_images_are_counted_and_named(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    plain = open_source(path)
    with pytest.raises(SutureError, match="2 of 24 cannot be used") as message:
        list(map(plain.take, torch.arange(len(plain)).split(8)))
    assert first in str(message.value)
    assert "\n" not in str(message.value)
    assert "skip_bad=True" in str(message.value)
    with pytest.raises(SutureError, match="2 of 24 cannot be used"):
        assert plain.fingerprint


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
@pytest.mark.parametrize("n", [None, 9])
def test_bad_images_are_left_out_everywhere(make: Callable[[Path], tuple[Path, str]], n: int | None,
                                            tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    found = open_source(path, n=n, skip_bad=True)
    assert len(found) == (22 if n is None else n)
    assert n == 9 or f"left out of {found.name}: 2 of 24 cannot be used, the first: {first}" in found.note
    if n is not None:
        drawn = open_source(path, n=12).rows.tolist()
        assert found.rows.tolist() == [r for r in drawn if r not in (3, 25)][:n]
    raw, labels = found.take(range(len(found)))
    made = pictures(30)
    for k, row in enumerate(found.rows.tolist()):
        assert row not in (3, 25)
        assert torch.equal(raw[k], torch.from_numpy(made[row][0]).permute(2, 0, 1))
        assert int(labels[k]) == made[row][1]


def test_more_than_the_good_ones(tmp_path: Path) -> None:
    path, _ = spoilt_folder(tmp_path / "set")
    with pytest.raises(SutureError, match=r"expected 23 usable examples in set-train, got 22: 2 of 24"):
        open_source(path, n=23, skip_bad=True)


def test_draws_walk_past_bad_images() -> None:
    """Skipping gives the draw from everything, without the bad ones."""
    made = pictures(40)
    store = Counted([encoded(p) for p, _ in made])
    labels = [y for _, y in made]
    order = draw_balanced_order(np.array(labels), 0).tolist()
    for bad in order[2:5]:
        store.held[bad] = b"x"
    good, bad_ones = find_decodable(store, "images", torch.tensor(order), 10)
    assert good.tolist() == [r for r in order if r not in order[2:5]][:10]
    assert bad_ones is not None
    assert (bad_ones.count, bad_ones.of,
            bad_ones.first) == (3, 13, f"value {order[2]} is no image that Pillow knows")


def test_many_bad_images_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MOST_TRIED", 20)
    found = made_of(pictures(50))
    found.store.held[30] = b"x"
    with pytest.raises(SutureError, match="one cannot be used: value 30 is no image"):
        found.take([30])
    found.store.held[3] = b"x"
    with pytest.raises(SutureError, match="among its first 20: 1 of 20 cannot be used, the first: value 3"):
        found.take([30])
