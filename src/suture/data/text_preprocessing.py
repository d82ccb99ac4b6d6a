"""Preprocessing of raw texts: tokens, and masks over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import Doc

from suture._base import Count, Real, SutureError, Whole, describe_value, expect, options

_UNBOUNDED = 10**9
"""Lengths from here on mean no limit: transformers writes int(1e30) for a tokenizer without one."""


@options
class TextPreprocessing:
    """Preprocessing from texts to a language model's input: a dict of tensors (N, T), padded on the right.

    A `mask_rate` gives inputs and labels of masked language modelling (Devlin et al. 2019, arXiv 1810.04805,
    and its published code). Of the n tokens of a text that are not special, ``max(1, round(mask_rate * n))``
    are predicted: 80 % of them become the mask token, 10 % any word, and 10 % stay. `seed`, the text and the
    number of its tokens decide which ones.

    Two preprocessings are equal if they give the same for every text.

    Args:
        {options}

    Raises:
        SutureError: a value outside these bounds, a tokenizer with more tokens than `vocab`, or one without
            the mask token that `mask_rate` needs.
    """

    tokenizer: Annotated[Any, Doc(
        "tokenizer of transformers. It is not changed. If it has no padding token, its end token pads; "
        "`attention_mask` hides either.")]
    length: Annotated[Count | None, Doc(
        "T, the number of tokens that texts are padded and cut to. None: pad to the longest text of the "
        "batch, and cut to the tokenizer's `model_max_length` where it has one.")] = None
    mask_rate: Annotated[Real, Field(ge=0, lt=1), Doc(
        "share of tokens to predict, in [0, 1); 0 (default): none, and no labels.")] = 0.0
    seed: Annotated[Whole, Doc("seed of the masks.")] = 0
    most: Annotated[Count | None, Doc(
        "number of positions of the network; texts are never longer. None: unknown.")] = None
    vocab: Annotated[Count | None, Doc("number of embeddings of the network. None: unknown.")] = None

    def __post_init__(self) -> None:
        name = type(self.tokenizer).__name__
        expect(callable(self.tokenizer) and hasattr(self.tokenizer, "get_vocab"),
               "a tokenizer of transformers", name)
        last = max(self._vocabulary.values(), default=0)
        if self.vocab is not None and last >= self.vocab:
            raise SutureError(f"expected token ids below the network's {self.vocab} embeddings, {name} goes "
                              f"to {last}; give the network its own tokenizer")
        if self.mask_rate and self.tokenizer.mask_token_id is None:
            raise SutureError(f"{name} has no mask token; leave out mask_rate, or give another tokenizer")
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if self.length is not None and not least <= self.length <= (self.most or self.length):
            upper = "" if self.most is None else f" and at most the network's {self.most}"
            raise SutureError(f"expected a length of at least {least} tokens{upper}, got {self.length}")

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return dict(self.tokenizer.get_vocab())

    @cached_property
    def _words(self) -> Tensor:
        """Ids of the tokens that are not special, each once."""
        return torch.tensor(sorted({*self._vocabulary.values()}.difference(self.tokenizer.all_special_ids)),
                            dtype=torch.int64)

    @cached_property
    def _name(self) -> str:
        return (f"{type(self.tokenizer).__name__}, {len({*self._vocabulary.values()})} tokens "
                f"{_hash_tokenizer(self.tokenizer, self._vocabulary)}")

    @property
    def limit(self) -> int | None:
        """Number of tokens that texts are cut to; None where they are not cut."""
        own = getattr(self.tokenizer, "model_max_length", _UNBOUNDED)
        limits = [n for n in (self.length or (own if own < _UNBOUNDED else None), self.most) if n is not None]
        return min(limits, default=None)

    def __repr__(self) -> str:
        return (f"TextPreprocessing({self._name}, length={self.length}, limit={self.limit}, "
                f"mask_rate={self.mask_rate}, seed={self.seed})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextPreprocessing) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenize `texts`.

        Returns:
            input_ids, attention_mask and the tokenizer's other model inputs, (N, T), int64; with a mask rate
            also labels, which are -100 at tokens that are not predicted.

        Raises:
            SutureError: something that is not a string, or a text without a token.
        """
        texts = _check_strings(texts)
        coded = self._tokenize(texts)
        rows = coded["input_ids"]
        if [] in rows:
            raise SutureError(f"expected texts of at least one token, text {rows.index([])} has "
                              "none; leave it out")
        pad = next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None),
                   0)
        fill = {"input_ids": pad, "token_type_ids": getattr(self.tokenizer, "pad_token_type_id", 0),
                "labels": -100}
        names = dict.fromkeys(["input_ids", "attention_mask", *self.tokenizer.model_input_names])
        columns = {name: coded[name] for name in names if name in coded}
        if self.mask_rate:
            pairs = [self._mask_tokens(*each)
                     for each in zip(texts, rows, coded["special_tokens_mask"], strict=True)]
            columns["input_ids"], columns["labels"] = ([p[k] for p in pairs] for k in (0, 1))
        width = self.length or max(map(len, rows))
        return {name: torch.tensor([[*row, *[fill.get(name, 0)] * (width - len(row))] for row in column])
                for name, column in columns.items()}

    def _tokenize(self, texts: list[str], **more: Any) -> dict[str, Any]:
        cut = {} if self.limit is None else {"max_length": self.limit}
        # The caller pads, because some tokenizers have no padding token and must not be changed.
        coded: dict[str, Any] = self.tokenizer(texts, truncation=bool(cut), padding=False,
                                               return_attention_mask=True,
                                               return_special_tokens_mask=True, **cut, **more)
        return coded

    def _mask_tokens(self, text: str, ids: list[int], special: list[int]) -> tuple[list[int], list[int]]:
        """Return (ids with masks, labels) of one text."""
        plain = [i for i, s in enumerate(special) if not s]
        digest = hashlib.blake2b(f"{self.seed}\0{text}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
        n = len(plain)
        order = torch.randperm(n, generator=generator).tolist()
        kinds, draws = (torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
        made, labels = list(ids), [-100] * len(ids)
        for k in order[:max(1, round(self.mask_rate * n))]:
            place = plain[k]
            labels[place] = ids[place]
            if kinds[k] < 0.8:
                made[place] = self.tokenizer.mask_token_id
            elif kinds[k] < 0.9:
                made[place] = int(self._words[int(draws[k] * len(self._words))])
        return made, labels


def explain_token_mismatch(a: TextPreprocessing, b: TextPreprocessing, texts: Sequence[str]) -> str:
    """Return one line on why two networks' tokens differ on `texts`, or "" where they are the same.

    Tokens are the same if they cover the same characters (apart from blanks around them) in the same order,
    with special tokens at the same places and the same padding and masks. Their ids may differ.
    """
    if a == b:
        return ""
    for name in ("length", "mask_rate", "seed"):
        one, other = getattr(a, name), getattr(b, name)
        if one != other and (name != "seed" or a.mask_rate):
            return f"{name.replace('_', ' ')} {one} for one and {other} for the other"
    for each in (a, b):
        if not getattr(each.tokenizer, "is_fast", False):
            return f"{type(each.tokenizer).__name__} does not tell which characters its tokens cover"
    texts = _check_strings(texts)
    for i, (text, one, other) in enumerate(zip(texts, _find_spans(a, texts), _find_spans(b, texts),
                                               strict=True)):
        for k, (x, y) in enumerate(zip(one, other, strict=False)):
            if x != y:
                return (f"token {k} of text {i} is {text[slice(*x)] or 'special'!r} for one and "
                        f"{text[slice(*y)] or 'special'!r} for the other")
        if len(one) != len(other):
            return f"text {i} has {len(one)} tokens for one and {len(other)} for the other"
    return ""


def _find_spans(preprocessing: TextPreprocessing, texts: list[str]) -> list[list[tuple[int, int]]]:
    """Find (start, end) of each token in characters, without blanks around it; (0, 0) for special tokens."""
    offsets = preprocessing._tokenize(texts, return_offsets_mapping=True)["offset_mapping"]
    found = []
    for text, row in zip(texts, offsets, strict=True):
        spans = []
        for start, end in row:
            covered = text[start:end]
            left, right = len(covered) - len(covered.lstrip()), len(covered) - len(covered.rstrip())
            spans.append((start + left, end - right) if covered.strip() else (start, end))
        found.append(spans)
    return found


def _check_strings(texts: Iterable[Any]) -> list[str]:
    expect(not isinstance(texts, str), "a list of texts", "one text", "write [text]")
    listed = list(texts)
    expect(len(listed) > 0, "texts as strings", "none")
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise SutureError(f"expected texts as strings, got {describe_value(text)} at {i}")
    return listed


def _hash_tokenizer(tokenizer: Any, vocabulary: dict[str, int]) -> str:
    """Compute a short hash of a tokenizer's vocabulary, rules and special tokens."""
    rules: Any = sorted(vocabulary.items())
    if getattr(tokenizer, "is_fast", False):
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # Every call sets these two anew, so they say nothing about the tokenizer.
        rules = {k: v for k, v in rules.items() if k not in ("truncation", "padding")}
    special = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id,
               tokenizer.all_special_ids]
    settings = json.dumps([rules, special, tokenizer.truncation_side, tokenizer.model_input_names],
                          sort_keys=True)
    return hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
