"""Objects of `datasets`: whole, streamed, and with bad images."""

from __future__ import annotations

from typing import Any

import pytest

from suture import SutureError
from suture.data.batches import Batches
from suture.data.sources import open_pair, open_source
from tests.support.pictures import as_dataset, encoded, pictures


def test_objects_of_datasets() -> None:
    import datasets

    made = as_dataset(pictures(30))
    assert len(open_source(made)) == len(open_source(made, split="test")) == 30
    assert [len(x) for x in open_pair(made)] == [24, 6]
    both = datasets.DatasetDict({"train": made, "validation": made.select(range(4))})
    assert [len(x) for x in open_pair(both)] == [30, 4]
    chosen = open_source(made.select([5, 1, 20]))
    assert chosen.labels.tolist() == [0, 0, 2]
    assert len(list(Batches(chosen, size=2))) == 2
    texts = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0.5, 1.0]})
    assert open_source(texts).labels is None
    formatted = open_source(made.with_format("torch"))
    assert formatted.fingerprint == open_source(made).fingerprint


def test_bad_images_in_objects_of_datasets() -> None:
    import datasets

    made = as_dataset(pictures(6))
    rows = [{"img": {"bytes": b"x", "path": None}, "label": 1}]
    spoilt = datasets.concatenate_datasets([made, datasets.Dataset.from_list(rows, features=made.features)])
    with pytest.raises(SutureError, match="1 of 7 cannot be used, the first: dataset, row 6 is no image"):
        open_source(spoilt).take([6])
    assert len(open_source(spoilt, skip_bad=True)) == 6


@pytest.mark.parametrize("known", [True, False])
def test_streams_of_datasets(known: bool) -> None:
    import datasets

    made = pictures(30)
    stream: Any = as_dataset(made).to_iterable_dataset()
    if not known:
        def rows() -> Any:
            for pixels, label in made:
                yield {"img": encoded(pixels), "label": label}

        stream = datasets.IterableDataset.from_generator(rows)
        assert stream.features is None
    found = open_source(stream, n=7)
    assert (len(found), found.classes) == (7, 3 if known else 1)
    assert "the first 7 examples of a stream" in found.note
    assert found.content == open_source(as_dataset(made[:7])).content
    with pytest.raises(SutureError, match=r"expected examples in .*, got none"):
        open_source(as_dataset(made).to_iterable_dataset().skip(40), n=7)
    with pytest.raises(SutureError, match=r"the streamed data set .* give n"):
        open_source(stream)
    with pytest.raises(SutureError, match=r"expected a stream with two splits.*IterableDatasetDict"):
        open_pair(stream, train_size=3, test_size=2)
    both = datasets.IterableDatasetDict({"train": stream.skip(5), "test": stream.take(5)})
    parts = open_pair(both, train_size=9, test_size=3)
    assert [sorted(x.rows.tolist()) for x in parts] == [list(range(9)), list(range(3))]
    assert [len(x.store) for x in parts] == [9, 3]
    with pytest.raises(SutureError, match=r"from 1 to 5, all that .* has, got 6"):
        open_pair(both, train_size=9, test_size=6)
