"""Networks of Hugging Face on the command line: images in both directions, texts whatever their padding."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import suture

Command = Callable[..., tuple[int, str, str]]
WORDS = ["red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "eats", "and", "the", "a",
         "fast", "slow"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _save(network: hf.PreTrainedModel, name: str) -> None:
    network.save_pretrained(name)


@pytest.fixture
def image_networks(command: Command) -> Command:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vit = hf.ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                           image_size=8, patch_size=2, num_channels=1, num_labels=10)
        resnet = hf.ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1],
                                 layer_type="basic", num_labels=10)
        _save(hf.ViTForImageClassification(vit), "vit")
        _save(hf.ResNetForImageClassification(resnet), "resnet")
    return command


@pytest.mark.parametrize("names", [("hf:vit", "hf:resnet"), ("hf:resnet", "hf:vit"), ("vit", "./resnet")])
def test_a_vit_and_a_resnet_in_both_directions(image_networks: Command, names: tuple[str, str]) -> None:
    code, out, err = image_networks("compare", *names, "--data", "digits", "--train-size", "60",
                                    "--test-size", "40",
                                    "--methods", "dm", "--ood", "none", "--device", "cpu", "--out", "out")
    assert (code, err) == (0, "")
    assert "tokens 17x16 (1 prefix, 4x4 patches)" in " ".join(out.split()) or "4x4 patches" in out
    result = suture.load("out")
    for measure in ("dm.relative_accuracy", "cka", "dm.r2"):
        assert result.matrix(measure).notna().all(axis=None)
    train, test = (suture.zoo.digits("train").subset(60), suture.zoo.digits("test").subset(40))
    networks = {"vit": hf.ViTForImageClassification, "resnet": hf.ResNetForImageClassification}
    made = [networks[n.removeprefix("hf:").removeprefix("./")].from_pretrained(n.removeprefix("hf:"))
            for n in names]
    by_hand = suture.compare(*made, train, test, methods=["dm"], ood=None, device="cpu")
    assert by_hand.table["value"].to_numpy() == pytest.approx(result.table["value"].to_numpy(), nan_ok=True)


def _tokenizer(folder: str, words: list[str]) -> None:
    made = Tokenizer(models.WordLevel({w: k for k, w in enumerate(SPECIAL + words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]",
                                                        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
                               sep_token="[SEP]", mask_token="[MASK]",
                               model_max_length=32).save_pretrained(folder)


@pytest.fixture
def text_networks(command: Command, tmp_path: Path) -> Command:
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, width in (("one", 16), ("two", 24)):
            config = hf.BertConfig(vocab_size=len(SPECIAL + WORDS), hidden_size=width, num_hidden_layers=2,
                                   num_attention_heads=2, intermediate_size=16, max_position_embeddings=32,
                                   num_labels=3)
            _save(hf.BertForSequenceClassification(config), name)
            _tokenizer(name, WORDS)
            _save(hf.BertForMaskedLM(config), f"{name}-masked")
            _tokenizer(f"{name}-masked", WORDS)
    for split, n in (("train", 60), ("test", 40)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            for k in range(n):
                writer.writerow((" ".join(rng.choice(WORDS, rng.integers(2, 10))), k % 3))
    (tmp_path / "texts").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").rename(tmp_path / "texts" / f"{split}.csv")
    return command


def _run(command: Command, out: str, *more: str) -> suture.Comparison:
    code, _, err = command("compare", *more, "--data", "texts", "--methods", "dm", "--device",
                           "cpu", "--out", out)
    assert (code, err) == (0, "")
    return suture.load(out)


@pytest.mark.parametrize(("names", "lengths"), [
    (("hf:one", "hf:two"), (20,)), pytest.param(("hf:two", "hf:one"), (12,), marks=pytest.mark.slow)])
def test_two_encoders_whatever_the_padding(text_networks: Command, names: tuple[str, str],
                                           lengths: tuple[int, ...]) -> None:
    found = [_run(text_networks, f"out{k}", *names, *options)
             for k, options in enumerate(([], *(["--length", str(n)] for n in lengths)))]
    for measure in ("dm.relative_accuracy", "cka", "dm.r2", "dm.ood_mahalanobis"):
        assert found[0].matrix(measure).notna().all(axis=None)
    for other in found[1:]:
        assert found[0].table["measure"].equals(other.table["measure"])
        assert other.table["value"].to_numpy() == pytest.approx(found[0].table["value"].to_numpy(), rel=1e-3,
                                                                abs=1e-4, nan_ok=True)


def test_masked_language_models_with_a_mask_rate(text_networks: Command) -> None:
    result = _run(text_networks, "out", "hf:one-masked", "hf:two-masked", "--mask-rate", "0.3",
                  "--ood", "none")
    assert result.meta["settings"]["task"] == "tokens"
    assert result.matrix("dm.relative_perplexity").notna().all(axis=None)


def test_networks_of_two_tokenizers_are_refused_with_the_reason(text_networks: Command,
                                                                tmp_path: Path) -> None:
    _tokenizer("two", WORDS[:-4])  # some words are unknown now, which changes no borders
    _run(text_networks, "same", "hf:one", "hf:two", "--ood", "none")
    made = Tokenizer(models.BPE({w: k for k, w in enumerate([*SPECIAL, *"abcdefghijklmnopqrstuvwxyz"][:19])},
                                [], unk_token="[UNK]"))
    hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]",
                               model_max_length=32).save_pretrained("two")
    code, _, err = text_networks("compare", "hf:one", "hf:two", "--data", "texts", "--methods", "dm")
    assert code == 2
    assert err.count("\n") == 1
    assert "tokens do not correspond" in err


def test_texts_for_a_network_without_a_tokenizer(text_networks: Command) -> None:
    code, _, err = text_networks("compare", "tests.support.tiny:network", "--data", "texts",
                                 "--methods", "dm")
    assert code == 2
    assert "tokenizer" in err
