"""Batches for both networks, read from data of any form or from two streams in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from functools import partial
from itertools import count, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from suture._base import (
    SutureError,
    convert_tensors,
    expect,
    hash_object,
    is_count,
    report_errors,
)
from suture.data.batch import Batch, Prepared, cut_batch, drop_placeholders, move_tensor
from suture.data.collation import ExampleStream, collate
from suture.data.forms import advise_graph, has_lists, read_batch, read_inputs, split_labels
from suture.data.indexed import (
    RowStream,
    choose_rows,
    find_rows,
    get_raw,
    pick_examples,
    spread_rows,
)
from suture.data.loaders import count_loaded_examples, report_reading
from suture.data.misplaced import refuse_no_data
from suture.data.seen import TRIED, SeenData, SeenDigest, draws_other_examples, read_some
from suture.data.sources.libraries import is_stream

_END: Any = object()


class Batches:
    """Re-iterable batches of a given size.

    Args:
        data: a DataLoader or any re-iterable of batches, a `Paired`, a `Prepared`, a map-style Dataset of
            (input, label) or of mappings (also of the library `datasets`, or a stream of it), a pair of
            tensors or arrays (inputs (N, ...), labels (N,)), also as a `TensorDataset` of two, inputs
            (N, ...) alone, or a mapping of them.
        size: examples per batch (default 256), for datasets and tensors. Loaders keep their own size.
        name: name of the data in messages.
        shuffle, seed: draw a new order in every pass, for datasets and tensors. `seed` decides all orders.
        rows: use only these examples, in this order (int64 indices, see `split_rows`), likewise.
        most: use only the first examples, at most this many. Default: all.
        exact: refuse data with fewer than `most` examples, before they are read where their number is known.
        device: device on which raw examples are prepared (`Prepared`). Default: the device they are on.
        watched: compute the digests of what each whole pass sees, for `seen`.
        complete: function that adds to each batch what the networks need. Default: nothing.

    Attributes:
        seen: what the last whole pass saw; None before, and unless `watched`.
        running: digest of what the last pass has seen so far, likewise.
        order: generator of the orders of the passes; None where suture does not shuffle.

    Raises:
        SutureError: inputs and labels of unequal length, an iterator that can be read only once, no examples,
            a size or a number of examples below 1, or `rows` of data without an index.
    """

    def __init__(self, data: Any, *, size: int = 256, name: str = "data", shuffle: bool = False,
                 seed: int = 0, rows: Tensor | None = None, most: int | None = None,
                 exact: bool = False, device: torch.device | None = None, watched: bool = False,
                 complete: Callable[[Batch], Batch] | None = None) -> None:
        expect(most is None or is_count(most), f"at least 1 example of {name}", most)
        expect(is_count(size), f"a batch size of at least 1 for {name}", size)
        self.name, self._most, self._device, self.watched = name, most, device, watched
        self.seen: SeenData | None = None
        self.running: SeenDigest | None = None
        self.complete, self._prepared = complete, data if isinstance(data, Prepared) else None
        self._listed: bool | None = None
        self._counted: int | None = None
        self.order: torch.Generator | None = None
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        self._stream, self._exact = self._open_stream(get_raw(data), size, generator, rows), exact
        if exact and (there := self.count_examples()) is not None:
            self._check_number(there)

    def _open_stream(self, data: Any, size: int, generator: torch.Generator | None,
                     rows: Tensor | None) -> Iterable[Any]:
        with report_errors(f"{self.name} cannot be counted", "correct __len__"):
            found = find_rows(data)
        if found is None:
            if rows is not None:
                raise SutureError(f"expected {self.name} that can be split, got {type(data).__name__}; pass "
                                  "a Dataset or (inputs, labels)")
            refuse_no_data(data, self.name)
            if isinstance(data, Iterator) or not isinstance(data, Iterable):
                raise SutureError(f"expected {self.name} that can be read more than once, got "
                                  f"{type(data).__name__}; pass a DataLoader, a Dataset or (inputs, labels)")
            return ExampleStream(data, size) if is_stream(data) else data
        n, take = found
        if n == 0:
            raise self._make_empty_error()
        self.order = generator
        rows = torch.arange(n) if rows is None else rows
        rows = rows if self._most is None else rows[:self._most]
        if take is None:
            return DataLoader(Subset(data, rows.tolist()), batch_size=size, shuffle=generator is not None,
                              generator=generator, collate_fn=collate)
        return RowStream(take, rows, size, generator)

    def _check_number(self, there: int) -> None:
        if self._exact and self._most is not None and there < self._most:
            raise SutureError(f"expected at least {self._most} examples in {self.name}, as examples= says, "
                              f"got {there}; write examples={there}, or leave it out")

    def _make_empty_error(self) -> SutureError:
        return SutureError(f"expected at least one example in {self.name}, got none; check the "
                           "split or the path")

    def __len__(self) -> int:
        return len(self._stream)  # type: ignore[arg-type]

    def count_batches(self) -> int | None:
        """Return the number of batches, or None where it is unknown."""
        if self._counted is not None or self._most is not None:
            return self._counted
        with suppress(Exception):  # a `__len__` of the user's, which may not know either
            return len(self)
        return None

    def count_examples(self) -> int | None:
        """Return the number of examples of a pass, or None where it is unknown."""
        n = (len(self._stream.rows) if isinstance(self._stream, RowStream)
             else count_loaded_examples(self._stream))
        return n if n is None or self._most is None else min(n, self._most)

    def __iter__(self) -> Iterator[Batch]:
        if not self.watched:
            yield from self._read()
            return
        digest = self.running = SeenDigest()
        for batch in self._read():
            digest.update(batch)
            yield batch
        self.seen = digest.finish()

    def iterate(self, first: int) -> Iterator[Batch]:
        """Yield the batches of a pass, which is not watched, after the first ones.

        These are not read where the data are tensors, arrays or examples of `suture.sources`.
        """
        return self._read(first)

    def spread(self, n: int) -> list[Batch]:
        """Return batches of at most `n` examples, evenly spread over the data.

        The others are not read where suture can choose examples by number.
        """
        total = self.count_examples()
        if total is None:
            total = sum(batch.size for batch in self._read())
        rows = spread_rows(total, n)
        chosen = choose_rows(self._stream, rows)
        if chosen is None:
            return list(pick_examples(self._read(), rows))
        few = copy(self)
        few._stream, few.watched, few._most = chosen, False, None
        return list(few._read())

    def read_again(self) -> SeenData:
        """Read all data of a `watched` stream, and return what was seen."""
        for _ in self:
            pass
        assert self.seen is not None
        return self.seen

    def list_sizes(self) -> list[int]:
        """Return the sizes of the batches of a pass; loaders that do not tell are read for it."""
        n = self.count_examples()
        size = getattr(self._stream, "size" if isinstance(self._stream, RowStream) else "batch_size", None)
        if n is None or size is None:
            return [batch.size for batch in self._read()]
        return [min(size, n - start) for start in range(0, n, size)]

    def count_before(self, example: int) -> int:
        """Return the number of batches before an example that need not be read."""
        return example // self._stream.size if isinstance(self._stream, RowStream) else 0

    def find_start(self, example: int) -> int:
        """Return the number of the first example that is read for one."""
        return self.count_before(example) * getattr(self._stream, "size", 0)

    def take_over(self, other: Batches) -> None:
        """Note what a whole pass over the same data has seen and counted elsewhere."""
        self.seen, self.running, self._counted = other.seen, other.running, other._counted

    def is_random(self) -> bool:
        """Try if a few examples differ when they are read twice, as with random augmentation."""
        one, other = (hash_object(self._try_examples()).state for _ in range(2))
        return one != other or draws_other_examples(self._stream)

    def _try_examples(self) -> Any:
        whole = self._stream
        if isinstance(whole, Paired):
            return whole.source._try_examples(), whole.target._try_examples()
        with report_reading(f"a few examples of {self.name}"):
            items = whole.take(whole.rows[:TRIED]) if isinstance(whole, RowStream) else read_some(whole)
        if self._prepared is None:
            return items
        made = self._prepared.batch(*split_labels(items))
        return made.source, made.target, made.labels

    def _read(self, first: int = 0) -> Iterator[Batch]:
        """Yield the batches after the first ones (`iterate`)."""
        empty, left, labelled = True, self._most, None
        done = jump = first if isinstance(self._stream, RowStream) else 0
        for item in self._read_items(jump):
            if left is not None and left <= 0:
                return
            batch = item if isinstance(item, Batch) else self._make_batch(*read_batch(item))
            if batch.labels is not None and len(batch.labels) != batch.size:
                raise SutureError(f"expected as many labels as inputs in {self.name}, got "
                                  f"{len(batch.labels)} labels for {batch.size} inputs in one batch"
                                  f"{advise_graph(batch.source)}")
            batch = drop_placeholders(batch)
            if batch.size:
                empty, found = False, batch.labels is not None
                expect(labelled in (None, found), f"labels in every batch of {self.name}, or in none", "both",
                       "leave out the examples without a label, or all labels")
                labelled, batch = found, batch if self.complete is None else self.complete(batch)
                done += 1  # batches without examples do not count, because nobody sees them
                if done > first:
                    yield batch if left is None or batch.size <= left else next(cut_batch(batch, left))
                left = None if left is None else left - batch.size
        self._counted = done  # which `__len__` may have said wrongly
        if empty and not jump:
            raise self._make_empty_error()
        if left is not None and left > 0 and self._most is not None and not jump:
            self._check_number(self._most - left)

    def _read_items(self, first: int = 0) -> Iterator[Any]:
        """Yield what the loader yields; an error of the user's code names the batch."""
        reading = self._stream.iterate(first) if isinstance(self._stream, RowStream) else None
        for k in count(first):
            with report_reading(f"batch {k} of {self.name}"):
                reading = iter(self._stream) if reading is None else reading
                item = next(reading, _END)
            if item is _END:
                return
            yield item

    def _make_batch(self, inputs: Any, labels: Tensor | None, size: int | None) -> Batch:
        if self._prepared is None:
            inputs = read_inputs(inputs, size, self._listed)
            self._listed = has_lists(inputs) if self._listed is None else self._listed
            return Batch(inputs, inputs, labels)
        if self._device is not None:
            inputs = convert_tensors(inputs, partial(move_tensor, device=self._device))
        return self._prepared.batch(inputs, labels)


class Paired:
    """Two streams of the same examples, prepared differently for each network, read in step.

    Args:
        source, target: data as `Batches` accepts them, such as two unshuffled DataLoaders.

    Raises:
        SutureError: an iterator that can be read only once. During reading: the streams differ in length, in
            batch sizes or in labels. Different labels show that the examples do not correspond.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self.source = Batches(source, name="the source loader")
        self.target = Batches(target, name="the target loader")

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        ends: Any = object()
        for k, (x, y) in enumerate(zip_longest(self.source, self.target, fillvalue=ends)):
            if x is ends or y is ends:
                side = "source" if x is ends else "target"
                raise SutureError(f"the {side} loader ended after {k} batches, before the other; give both "
                                  "the same examples and batch size")
            if x.size != y.size:
                raise SutureError(f"expected paired batches of equal length, got {x.size} and {y.size} "
                                  f"examples in batch {k}; give both loaders the same batch size")
            labels, other = x.labels, y.labels
            if labels is not None and other is not None and not torch.equal(labels.cpu(), other.cpu()):
                raise SutureError(f"the labels of the two loaders differ in batch {k}: their examples do not "
                                  "correspond; use shuffle=False in both")
            yield Batch(x.source, y.source, labels if labels is not None else other)
