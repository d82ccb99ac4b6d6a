"""Padding must not change the numbers of the other tokens: fixed, refused, or told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError
from suture.representations import get_token_mask, read_mask
from tests.support.encoder_decoders import compute_cka, draw_texts, pad, seeded
from tests.support.plain_hooks import capture
from tests.support.sequences import Text

TEXTS = draw_texts(9, 3)
DM = {"methods": ["dm"], "ood": None, "indices": ["cka"]}


class Placed(nn.Module):
    """Ids -> logits, with positions by place; `reads` the mask or averages all places, padding too."""

    def __init__(self, takes_positions: bool = True, reads: bool = True) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30, 8), nn.Embedding(20, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))
        self.head, self.reads = nn.Linear(8, 4), reads
        if not takes_positions:
            self.forward = self.run

    def forward(self, input_ids: Tensor, attention_mask: Tensor,
                position_ids: Tensor | None = None) -> Tensor:
        return self.run(input_ids, attention_mask, position_ids)

    def run(self, input_ids: Tensor, attention_mask: Tensor, places: Tensor | None = None) -> Tensor:
        places = torch.arange(input_ids.shape[1]) if places is None else places
        x = self.words(input_ids) + self.places(places)
        for block in self.blocks:
            x = block(x)
        weight = attention_mask[..., None].float() if self.reads else torch.ones_like(x[..., :1])
        return self.head((x * weight).sum(1) / weight.sum(1))


def make_batch(texts: list[Tensor], left: bool) -> dict[str, Tensor]:
    texts = [t.flip(0) for t in texts] if left else texts
    found = {"input_ids": pad(texts, 0), "attention_mask": pad([torch.ones_like(t) for t in texts], 0)}
    return {k: t.flip(1) for k, t in found.items()} if left else found


def make_gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=20, n_embd=8, n_layer=2, n_head=2))


def make_bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                intermediate_size=8, max_position_embeddings=20))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("make", "site"), [(make_gpt2, "transformer.h.0"), (make_bert, "encoder.layer.1"),
                                            (Placed, "blocks.1")])
def test_left_padding_gives_the_numbers_of_texts_alone(make, site, left):
    one, two = seeded(make, 0), seeded(make, 1)
    wanted = compute_cka(*(torch.cat([
        capture(n, {"input_ids": t[None], "attention_mask": torch.ones_like(t[None])}, [site])[site][0]
        for t in TEXTS]).double() for n in (one, two)))
    data = [make_batch(TEXTS, left)]
    result = suture.compare(one, two, data, data, sites=[site], **DM)
    assert result.matrix("cka").values[0, 0] == pytest.approx(wanted, rel=1e-4)
    assert any("position_ids" in n for n in result.meta["notes"]) == left


def test_left_padding_that_no_positions_undo_is_refused_also_after_the_first_batch():
    networks = [seeded(lambda: Placed(takes_positions=False), k) for k in (0, 1)]
    same = [t[:3] for t in TEXTS]
    padded = make_batch(TEXTS, True)
    for data in ([padded], [make_batch(same, True), padded]):
        with pytest.raises(SutureError, match="left padding"):
            suture.compare(*networks, data=data, **DM)
    right = [make_batch(same, False), make_batch(TEXTS, False)]
    assert not any("padding" in n for n in suture.compare(*networks, data=right, **DM).meta["notes"])


def test_right_padding_that_changes_the_output_is_told():
    data = [make_batch(TEXTS, False)]
    networks = [seeded(lambda: Placed(reads=False), k) for k in (0, 1)]
    notes = suture.compare(*networks, data=data, **DM).meta["notes"]
    assert sum("padding changes the numbers" in n for n in notes) == 2


class Convolved(nn.Module):
    """Ids -> logits by convolutions over (N, C, T), which see the padding unless `masks`."""

    def __init__(self, masks: bool) -> None:
        super().__init__()
        self.words, self.head, self.masks = nn.Embedding(30, 8), nn.Linear(8, 4), masks
        self.blocks = nn.ModuleList(nn.Conv1d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        kept = attention_mask[:, None].float()
        x = self.words(input_ids).transpose(1, 2)
        for block in self.blocks:
            x = torch.tanh(block(x * kept if self.masks else x))
        return self.head((x * kept).sum(2) / kept.sum(2))


@pytest.mark.parametrize("masks", [True, False])
def test_padding_of_signals_of_a_text_is_checked_along_their_positions(masks):
    data = [make_batch(TEXTS, False)]
    networks = [seeded(lambda: Convolved(masks), k) for k in (0, 1)]
    result = suture.compare(*networks, data=data, **DM)
    assert "map ~8x9" in result.meta["shapes"]["source"]
    assert sum("padding changes the numbers" in n for n in result.meta["notes"]) == (0 if masks else 2)


def test_an_unread_mask_is_told():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Placed()
            self.blocks = self.inner.blocks

        def forward(self, ids: Tensor, padding_mask: Tensor) -> Tensor:
            return self.inner(ids, ~padding_mask)

    batch = make_batch(TEXTS, False)
    data = [{"ids": batch["input_ids"], "padding_mask": ~batch["attention_mask"].bool()}]
    result = suture.compare(seeded(Own, 0), seeded(Own, 1), data, data, sites=["inner.blocks.0"], **DM)
    notes = result.meta["notes"]
    assert sum("padding_mask" in n for n in notes) == 2


def test_masks_of_every_form_are_one():
    kept = make_batch(TEXTS, False)["attention_mask"].bool()
    added = torch.zeros(kept.shape).masked_fill(~kept, -1e4)
    pairs = kept[:, None, None] & torch.ones(9, 9).tril().bool()
    for form in (kept, kept.long(), kept.float(), added, added[:, None, None], kept[:, None], pairs,
                 pairs.expand(-1, 2, -1, -1)):
        assert torch.equal(read_mask(form), kept)
        assert torch.equal(get_token_mask([{"x": kept, "attention_mask": form}]), kept)
    assert get_token_mask({"x": kept, "attention_mask": torch.ones(1, 1, 9, 9).tril()}) is None


def test_a_mask_among_positional_arguments_is_read():
    from tests.support.sequences import TEXTS as FEW

    one, two = seeded(Text, 0), seeded(Text, 1)
    ids = pad(FEW, 0)
    named = [{"input_ids": ids, "attention_mask": ids > 0}]
    placed = [((ids, ids > 0), None)]
    values = [suture.compare(one, two, d, d, **DM).matrix("cka").values for d in (named, placed)]
    assert (values[0] == values[1]).all()
