"""Examples with named columns of several lengths, as tokenised data sets hold them."""

from __future__ import annotations

from functools import cache
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import BatchEncoding, GPT2Config, GPT2ForSequenceClassification, RobertaConfig, RobertaModel

import suture
from suture import Prepared, SutureError
from suture.compare.opened_data import make_completion
from suture.data import Batches, split_rows
from suture.data.collation import collate
from suture.networks import apply, disable_gradients

LENGTHS = [5, 3, 7, 4, 4, 6, 2, 5, 3]
IDS = [[(7 * k + 3 * i) % 13 + 2 for i in range(n)] for k, n in enumerate(LENGTHS)]
LABELS = [k % 3 for k in range(len(IDS))]
COLUMNS: dict[str, list[Any]] = {"input_ids": IDS, "attention_mask": [[1] * n for n in LENGTHS],
                                 "label": LABELS}
OTHERS = {"idx": list(range(9)), "text": ["a"] * 9}


class Rows(Dataset[Any]):
    def __init__(self, columns: dict[str, Any] = COLUMNS) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> Any:
        return {name: values[index] for name, values in self.columns.items()}


@cache
def _build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    small = {"vocab_size": 16, "num_labels": 3}
    if kind == "causal":  # which finds the last token of a text by the padding id
        return GPT2ForSequenceClassification(GPT2Config(
            **small, n_embd=8, n_layer=2, n_head=2, n_positions=9, pad_token_id=1, bos_token_id=0,
            eos_token_id=0)).eval()
    return RobertaModel(RobertaConfig(**small, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                      intermediate_size=8, max_position_embeddings=12, pad_token_id=1),
                        add_pooling_layer=True).eval()


@disable_gradients()
def _run(network: nn.Module, inputs: Any) -> Tensor:
    found = apply(network, inputs)
    return found.logits if hasattr(found, "logits") else found.pooler_output


def _stream() -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(lambda: iter(Rows()[k] for k in range(9)))


KINDS = {
    "lists": lambda: datasets.Dataset.from_dict(COLUMNS),
    "tensors": lambda: datasets.Dataset.from_dict(COLUMNS).with_format("torch"),
    "arrays": lambda: datasets.Dataset.from_dict(COLUMNS).with_format("numpy"),
    "other columns": lambda: datasets.Dataset.from_dict(COLUMNS | OTHERS),
    "no mask": lambda: datasets.Dataset.from_dict(COLUMNS).remove_columns("attention_mask"),
    "stream": _stream, "list": lambda: [Rows()[k] for k in range(9)], "Dataset": Rows,
    "loader": lambda: DataLoader(Rows(), batch_size=4, collate_fn=collate),
}


@pytest.mark.parametrize("network", ["causal", "encoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_padded_texts_give_what_each_gives_alone(kind: str, network: str) -> None:
    net = _build(network)
    batches = Batches(KINDS[kind](), size=4, complete=make_completion(net, None))
    for _ in range(2):
        found = list(batches)
        assert [b.size for b in found] == [4, 4, 1]
        assert torch.cat([b.labels for b in found]).tolist() == LABELS
        alone = [_run(net, {"input_ids": torch.tensor([row])}) for row in IDS]
        together = torch.cat([_run(net, b.source) for b in found])
        assert torch.allclose(torch.cat(alone), together, atol=1e-5)


def test_tokenised_data_are_compared() -> None:
    options: dict[str, Any] = {"methods": ["dm"], "ood": None, "indices": ["cka"], "batch_size": 4}
    net = _build("causal")
    mine = suture.compare(net, data=KINDS["lists"](), **options)
    batches = [b.source | {"labels": b.labels} for b in Batches(Rows(), size=4,
                                                                complete=make_completion(net, None))]
    theirs = suture.compare(net, data=[dict(b) for b in batches], **options)
    assert mine.matrix("cka").equals(theirs.matrix("cka"))
    assert mine.matrix("dm.accuracy").equals(theirs.matrix("dm.accuracy"))
    assert suture.dry_run(net, data=KINDS["lists"](), **options).examples == (9, 9)
    assert mine.meta["n_fit"] == 9


def test_labels_of_tokens_are_padded_without_a_score() -> None:
    batch = next(iter(Batches(Rows({**COLUMNS, "labels": IDS, "label": LABELS}), size=2)))
    assert batch.labels.tolist() == [IDS[0], [*IDS[1], -100, -100]]
    assert batch.source["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_two_sequences_get_a_mask_each_and_other_columns_none() -> None:
    columns = {"input_ids": IDS, "decoder_input_ids": [row[:2 + k % 2] for k, row in enumerate(IDS)],
               "token_type_ids": [[1] * n for n in LENGTHS], "tags": [[1] * (n - 1) for n in LENGTHS]}
    made = collate([Rows(columns)[k] for k in (0, 1)])
    assert made["decoder_attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert made["token_type_ids"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert [len(t) for t in made["tags"]] == [4, 2]
    assert made.padded


def test_equal_lengths_are_not_padded() -> None:
    made = collate([{"input_ids": [1, 2]}, {"input_ids": [3, 4]}])
    assert (list(made), made.padded) == (["input_ids"], False)


def test_token_ids_that_a_loader_has_transposed_are_stacked() -> None:
    loader = DataLoader(Rows({"input_ids": [row[:2] for row in IDS], "label": LABELS}), batch_size=4)
    joined = torch.cat([b.source["input_ids"] for b in Batches(loader)])
    assert joined.tolist() == [row[:2] for row in IDS]


def test_rows_of_a_data_set_are_split_and_drawn() -> None:
    data = KINDS["lists"]()
    found = split_rows(data, 0.3, 0)
    assert found is not None
    assert [b.labels.tolist() for b in Batches(data, rows=found[1], size=9)] == [
        [LABELS[k] for k in found[1].tolist()]]


def test_columns_of_texts_and_images_are_prepared() -> None:
    def shout(texts: Any) -> Any:
        return {"input_ids": torch.tensor([[len(t)] for t in texts["text"]])}

    raw = datasets.Dataset.from_dict({"text": ["one", "three"], "label": [0, 1]})
    assert next(iter(Batches(Prepared(raw, shout)))).source["input_ids"].tolist() == [[3], [5]]
    from PIL import Image
    images = datasets.Dataset.from_dict({"image": [Image.new("L", (4 + k, 4), 255) for k in (0, 1)],
                                         "label": [0, 1]}).cast_column("image", datasets.Image())
    how = suture.ImagePreprocessing(size=(2, 2))
    assert next(iter(Batches(Prepared(images, how)))).source.tolist() == torch.ones(2, 1, 2, 2).tolist()


@pytest.mark.parametrize("n", [2, 3])
def test_examples_without_labels_are_no_pair(n: int) -> None:
    class Alone(Dataset[Any]):
        def __init__(self, items: list[Any]) -> None:
            self.items = items

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, index: int) -> Any:
            return self.items[index]

    def measure(texts: Any) -> Any:
        return torch.tensor([[len(t)] for t in texts])

    [batch] = Batches(Prepared(Alone(["a", "to", "the"][:n]), measure))
    assert (batch.source.tolist(), batch.labels) == ([[1], [2], [3]][:n], None)
    images = Alone([torch.ones(3, 4 + k, 5) for k in range(n)])
    [batch] = Batches(Prepared(images, suture.ImagePreprocessing(size=(2, 2))))
    assert (batch.source.shape, batch.labels) == ((n, 3, 2, 2), None)
    [batch] = Batches(Alone([[torch.ones(4), np.array(k)] for k in range(n)]))
    assert (batch.source.shape, batch.labels.tolist()) == ((n, 4), [*range(n)])
    [batch] = Batches(Alone([(torch.ones(4), np.array(k)) for k in range(n)]))
    assert batch.labels.tolist() == [*range(n)]


class Plain(nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids.float()


BAD: dict[str, tuple[Any, Any, str]] = {
    "a mask that is not taken": (Plain, Rows, "under 'attention_mask', which Plain does not take"),
    "no column that is taken": (nn.Identity, Rows, "named like an argument of"),
    "several splits": (Plain, lambda: datasets.DatasetDict(train=KINDS["lists"]()),
                       "got DatasetDict; write data['train']"),
    "raw text": (Plain, lambda: datasets.Dataset.from_dict({"text": ["a"], "label": [0]}),
                 "need a tokenizer"),
    "a frame": (Plain, lambda: KINDS["lists"]().to_pandas(), "got DataFrame; pass arrays"),
    "unequal columns": (Plain, lambda: [{"input_ids": [1], "label": 0}, {"ids": [1], "label": 0}],
                        "in every example, got one with other columns (ids, input_ids)"),
    "a loader that does not pad": (Plain, lambda: DataLoader(Rows(), batch_size=4),
                                   "batch 0 of data fails.*pad in collate_fn, or give the Dataset without"),
    "no padding id": (lambda: _without_padding(), KINDS["lists"], "no padding token is defined"),
}


def _without_padding() -> nn.Module:
    net = GPT2ForSequenceClassification(GPT2Config(vocab_size=16, n_embd=8, n_layer=2, n_head=2,
                                                   bos_token_id=0, eos_token_id=0))
    assert net.config.pad_token_id is None
    return net


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_a_batch_is_told_in_one_line(case: str) -> None:
    network, data, words = BAD[case]
    with pytest.raises(SutureError) as error:
        suture.compare(network(), data=data(), methods=[], batch_size=4)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in words.split(".*"))


def test_a_plain_mapping_is_left_as_it_is() -> None:
    given = BatchEncoding({"input_ids": torch.ones(2, 3, dtype=torch.int64), "labels": torch.tensor([0, 1])})
    batch = next(iter(Batches([given], complete=make_completion(_build("causal"), None))))
    assert type(batch.source) is dict
    assert torch.equal(batch.source["input_ids"], given["input_ids"])
