"""The evidence on a network's output: its tensors, and the labels that their largest values meet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suture._base import count_examples
from suture.data import Batch, cut_batch
from suture.networks import (
    apply,
    disable_gradients,
    lies_within,
    name_tensors,
    record,
    take_first,
    view_output_inputs,
    walk,
)
from suture.stitching.tasks import find_token_ids

EXAMPLES = 64
"""Largest number of examples that decide what an output is."""
_PIECE = 16


class Hits(NamedTuple):
    """Number of labels that the largest value of an output meets, of `n`, and the share that chance meets."""

    hits: int
    n: int
    chance: float

    @property
    def beat_chance(self) -> bool:
        """True if they exceed chance by more than three standard deviations."""
        mean, variance = self.n * self.chance, self.n * self.chance * (1 - self.chance)
        return self.hits > mean + 3 * math.sqrt(variance)


class Evidence:
    """Outputs of a network for the first few examples and, where these do not decide, for more.

    Args:
        network: frozen.
        inputs: a batch.
        labels: of its examples, or None.
        more: returns batches of more examples, spread over the data. Default: `inputs`.

    Attributes:
        few: inputs of the first examples.
        root: record of the pass over them.
        named: their outputs by place.
        labels: of the whole batch.
    """

    def __init__(self, network: nn.Module, inputs: Any, labels: Tensor | None,
                 more: Callable[[], Iterable[Batch]] | None = None) -> None:
        self.network, self.labels, self._more = network, labels, more
        self._batch, self.few = Batch(inputs, inputs, labels), take_first(inputs)
        with disable_gradients():
            self.root = record(network, self.few)
        self.named = name_tensors(self.root.output)

    @cached_property
    def tokens(self) -> Any:
        """Those of the inputs `few` that the output follows: of an encoder-decoder, those of the decoder."""
        return view_output_inputs(self.network, self.few, self.root)

    @property
    def few_labels(self) -> Tensor | None:
        """Labels of the first examples."""
        return None if self.labels is None else self.labels[:count_examples(self.few)]

    @cached_property
    def _seen(self) -> tuple[dict[str, Tensor], Tensor | None]:
        pieces: list[Batch] = []
        parts: list[dict[str, Tensor]] = []
        left = EXAMPLES
        batches = [self._batch] if self._more is None else self._more()
        for piece in chain.from_iterable(cut_batch(b, _PIECE) for b in batches):
            if left <= 0:
                break
            with disable_gradients():
                found = name_tensors(apply(self.network, piece.target))
            # Texts of another length cannot be put behind the others.
            if parts and _get_shapes(piece, found) != _get_shapes(pieces[0], parts[0]):
                break
            pieces.append(piece)
            parts.append(found)
            left -= piece.size
        labels = [p.labels for p in pieces if p.labels is not None]
        return ({path: torch.cat([part[path] for part in parts]) for path, t in parts[0].items() if t.ndim},
                torch.cat(labels) if labels else None)

    @property
    def many_labels(self) -> Tensor | None:
        """Labels of up to `EXAMPLES` examples."""
        return self._seen[1]

    def get_many(self, path: str) -> Tensor:
        """Return an output for up to `EXAMPLES` examples."""
        return self._seen[0][path]

    @cached_property
    def vocabulary(self) -> int | None:
        """Number of rows of the embedding that reads the token ids, or None."""
        ids = find_token_ids(self.tokens)
        if ids is None:
            return None
        for call in walk(self.root):
            if isinstance(call.module, nn.Embedding) and any(
                    isinstance(a, Tensor) and a.shape == ids.shape and torch.equal(a, ids)
                    for a in call.args):
                return call.module.num_embeddings
        return None

    def count_hits(self, path: str) -> Hits:
        """Count the labels that the largest value of an output meets, or the sign of one number.

        Outputs are (N, K), (N,), or (N, T, K) with labels (N, T), which are below 0 where nothing is scored.
        """
        x, labels = self.get_many(path), self.many_labels
        if labels is not None and labels.ndim == 2 and x.shape[:2] == labels.shape and x.ndim == 3:
            x, labels = x[labels >= 0], labels[labels >= 0]
        single = x.ndim == 1 or (x.ndim == 2 and x.shape[1] == 1)
        if labels is None or labels.ndim != 1 or labels.is_floating_point() or not (single or x.ndim == 2):
            return Hits(0, 0, 1.0)
        classes = x.flatten() > (0.5 if lies_within(x) else 0) if single else x.argmax(1)
        most = max(Counter(labels.tolist()).values(), default=0) / max(1, len(labels))
        return Hits(int((classes == labels).sum()), len(labels), max(most, 1 / max(2, x[0].numel())))


def _get_shapes(piece: Batch, outputs: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """Return the shapes of one example's outputs and labels."""
    labels = None if piece.labels is None else piece.labels.shape[1:]
    return labels, {path: t.shape[1:] for path, t in outputs.items()}
