"""What a network wants of raw examples: images against Pillow and transformers, texts against
transformers."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from suture import SutureError
from suture.data import (
    ImagePreprocessing,
    TextPreprocessing,
    explain_token_mismatch,
    parse_preprocessing,
)
from tests.support.pictures import photo

LEVEL = 1 / 255


def pillow(image: Tensor) -> Image.Image:
    array = image.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


# -- images --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_to_do_leaves_floats_alone_and_scales_bytes(channels: int) -> None:
    floats, raw = torch.randn(2, channels, 5, 4), photo(5, 4, channels)[None]
    assert torch.equal(ImagePreprocessing()(floats), floats)
    assert torch.equal(ImagePreprocessing()(raw), raw.float() / 255)


@pytest.mark.parametrize("image", [(40, 56), (57, 40), (9, 7), (32, 32)], ids=str)
@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize(("interpolation", "how"), [
    ("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)])
def test_resizing_and_cropping_are_pillows(image: tuple[int, int], crop: float, interpolation: Any,
                                           how: Any) -> None:
    x = photo(*image)
    short = int(28 / crop)
    h, w = (int(short * side / min(image)) for side in image)
    top, left = round((h - 28) / 2), round((w - 28) / 2)
    wanted = np.asarray(pillow(x).resize((w, h), how).crop((left, top, left + 28, top + 28))).transpose(2, 0,
                                                                                                        1)
    made = ImagePreprocessing(size=(28, 28), interpolation=interpolation, crop=crop)(x[None])[0]
    assert made.shape == (3, 28, 28)
    gaps = (made - torch.from_numpy(wanted.copy()) / 255).abs()
    # Pillow has its weights in fixed point, which turns ties the other way.
    assert gaps.max() <= (2.01 if interpolation == "bicubic" else 1.01) * LEVEL
    assert (gaps > 0.5 * LEVEL).float().mean() < 0.03


@pytest.mark.parametrize("size", [(16, 24), (24, 16)], ids=str)
@pytest.mark.parametrize("image", [(40, 56), (57, 40), (10, 9)], ids=str)
def test_images_cover_what_is_not_square(size: tuple[int, int], image: tuple[int, int]) -> None:
    x, factor = photo(*image), max(size[0] / image[0], size[1] / image[1])
    scaled = [round(factor * side) for side in image]
    top, left = (round((a - b) / 2) for a, b in zip(scaled, size, strict=True))
    wanted = np.asarray(pillow(x).resize(scaled[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    made = ImagePreprocessing(size=size)(x[None])[0]
    cut = torch.from_numpy(wanted[:, top:top + size[0], left:left + size[1]].copy())
    assert (made - cut / 255).abs().max() <= 1.01 * LEVEL


@pytest.mark.parametrize(("width", "corner", "left"), [
    (24, "round", 0), (25, "round", 0), (27, "round", 2), (27, "floor", 1), (29, "round", 2),
    (29, "floor", 2)])
def test_where_the_crop_starts(width: int, corner: Any, left: int) -> None:
    x = photo(24, width)[None]
    made = ImagePreprocessing(size=(24, 24), corner=corner)(x)
    assert torch.equal(made, x[..., left:left + 24] / 255)


@pytest.mark.parametrize("size", [(24, 24), (16, 24), (24, 16)], ids=str)
@pytest.mark.parametrize("image", [(40, 56), (57, 40), (24, 24), (24, 16)], ids=str)
def test_results_have_the_size_and_squashing_is_pillows(size: tuple[int, int],
                                                        image: tuple[int, int]) -> None:
    x = photo(*image)
    assert ImagePreprocessing(size=size)(x[None]).shape == (1, 3, *size)
    squashed = ImagePreprocessing(size=size, fit="squash")(x[None])[0]
    wanted = np.asarray(pillow(x).resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert (squashed - torch.from_numpy(wanted.copy()) / 255).abs().max() <= 1.01 * LEVEL


@pytest.mark.parametrize("preprocessing", [
    ImagePreprocessing(size=(12, 12)), ImagePreprocessing(size=(40, 40), interpolation="bicubic", crop=0.9),
    ImagePreprocessing(channels=1, mean=(0.5,), std=(0.25,)), ImagePreprocessing(size=(9, 12), fit="squash"),
], ids=str)
def test_bytes_and_floats_mean_the_same(preprocessing: ImagePreprocessing) -> None:
    raw = torch.stack([photo(20, 26, seed=s) for s in range(3)])
    gap = (preprocessing(raw) - preprocessing(raw / 255)).abs().max() * (preprocessing.std or (1.0,))[0]
    assert gap <= 1.5 * LEVEL


def test_an_image_of_the_size_is_not_touched() -> None:
    raw = photo(24, 24)[None]
    assert torch.equal(ImagePreprocessing(size=(24, 24), interpolation="bicubic")(raw), raw / 255)


@pytest.mark.parametrize("size", [(12, 12), (10, 14)], ids=str)
def test_a_list_of_any_sizes_is_each_image_on_its_own(size: tuple[int, int]) -> None:
    images = [photo(20, 26), photo(30, 18), photo(20, 26, 1), photo(20, 26, seed=1)]
    p = ImagePreprocessing(size=size, mean=(0.5, 0.4, 0.3), std=(0.2,), channels=3)
    made = p(images)
    assert made.shape == (4, 3, *size)
    assert torch.equal(made, torch.cat([p([x]) for x in images]))
    assert torch.equal(p(images[::-1]), made.flip(0))
    assert torch.equal(p(torch.stack([images[0], images[3]])), made[[0, 3]])


def test_grey_is_repeated_and_colour_turns_into_luma() -> None:
    grey, colour = photo(6, 7, 1), photo(6, 7)
    assert torch.equal(ImagePreprocessing(channels=3)(grey[None])[0], (grey / 255).repeat(3, 1, 1))
    wanted = torch.from_numpy(np.asarray(pillow(colour).convert("L")).copy()) / 255
    assert (ImagePreprocessing(channels=1)(colour[None])[0, 0] - wanted).abs().max() <= 1.01 * LEVEL


def test_normalising() -> None:
    x = torch.rand(2, 3, 4, 4)
    made = ImagePreprocessing(mean=(0.1, 0.2, 0.3), std=(0.5,))(x)
    assert torch.allclose(made, (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5)
    assert torch.allclose(ImagePreprocessing(std=(0.1, 0.2, 0.4))(x)[:, 2], x[:, 2] / 0.4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_floats_come_out_as_float32(dtype: torch.dtype) -> None:
    assert ImagePreprocessing(size=(4, 4))(torch.rand(2, 1, 8, 8).to(dtype)).dtype == torch.float32


def test_nothing_has_a_gradient_or_changes_its_input() -> None:
    x = torch.rand(2, 3, 8, 8)
    before = x.clone()
    ImagePreprocessing(size=(4, 4), mean=(0.5,), std=(0.5,))(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("p", "images", "words"), [
    (ImagePreprocessing(), [photo(8, 8), photo(9, 8), photo(9, 9)],
     "3 sizes such as 8x8 and 9x8; give size="),
    (ImagePreprocessing(), [photo(8, 8), photo(8, 8, 1)], "channels, got 1 and 3; give channels="),
    (ImagePreprocessing(), [], "got none"), (ImagePreprocessing(), [photo(8, 8), "a.png"], "got str"),
    (ImagePreprocessing(), [photo(8, 8)[0]], "uint8 of shape (8, 8)"),
    (ImagePreprocessing(), photo(8, 8), "(N, C, H, W)"),
    (ImagePreprocessing(), torch.ones(1, 3, 8, 8).int(), "int32"),
    (ImagePreprocessing(size=(4, 4)), torch.rand(0, 3, 8, 8), "of shape (0, 3, 8, 8)"),
    (ImagePreprocessing(mean=(0.5,)), torch.randn(4, 1, 8, 8), "expected floats in [0, 1], got -"),
    (ImagePreprocessing(size=(4, 4)), torch.full((1, 1, 8, 8), 200.0), "got 200 to 200"),
    (ImagePreprocessing(std=(0.5,)), torch.full((1, 1, 8, 8), float("nan")), "got nan to nan"),
    (ImagePreprocessing(channels=3), torch.rand(1, 4, 8, 8), "got 4"),
    (ImagePreprocessing(mean=(0.5, 0.5, 0.5)), torch.rand(1, 1, 8, 8), "give channels=3"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_images_that_cannot_be_prepared(p: ImagePreprocessing, images: Any, words: str) -> None:
    with pytest.raises(SutureError) as error:
        p(images)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"size": (0, 4)}, "size"), ({"size": 4}, "size: expected a tuple, got 4"), ({"size": (4, 4, 4)}, "size"),
    ({"mean": ()}, "mean"), ({"std": (0.0,)}, "above 0"), ({"std": 0.5}, "tuple"),
    ({"mean": (math.nan,)}, "finite"), ({"mean": (math.inf,)}, "finite"), ({"channels": 0}, "channels"),
    ({"channels": 1.5}, "channels"), ({"crop": 0.0}, "crop"), ({"crop": 1.5}, "crop"),
    ({"interpolation": "bicubik"}, "nearest: bicubic"), ({"fit": "pad"}, "unknown fit"),
    ({"corner": "ceil"}, "unknown corner"),
])
def test_what_is_no_image_preprocessing(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(SutureError, match=r"expected|unknown") as error:
        ImagePreprocessing(**arguments)
    assert words in str(error.value)


@pytest.mark.parametrize(("text", "wanted"), [
    ("size=64", ImagePreprocessing(size=(64, 64))), ("size=48x64", ImagePreprocessing(size=(48, 64))),
    ("size=64,mean=0.5/0.4/0.3,std=0.5,channels=3,interpolation=bicubic,crop=0.875,fit=squash,corner=floor",
     ImagePreprocessing((64, 64), (0.5, 0.4, 0.3), (0.5,), 3, "bicubic", 0.875, "squash", "floor")),
    (" size = 64 , std=1 ", ImagePreprocessing(size=(64, 64), std=(1.0,))), ("raw", None),
    *((text, ImagePreprocessing(mean=(0.485, 0.456, 0.406), channels=3)) for text in (
        "mean=0.485,0.456,0.406", "mean=0.485/0.456/0.406", "mean=0.485 0.456 0.406",
        " mean = 0.485, 0.456, 0.406", "mean=[0.485, 0.456, 0.406]", "mean=(0.485 0.456  0.406)",
        "mean=0.485,0.456,0.406,channels=3")),
    ("mean=0.1,0.2,0.3,std=0.4,0.5,0.6,size=8",
     ImagePreprocessing((8, 8), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3)),
    ("size=48,64,std=0.5", ImagePreprocessing(size=(48, 64), std=(0.5,))),
    ("std=0.5 0.6 mean=0.1", ImagePreprocessing(mean=(0.1,), std=(0.5, 0.6), channels=2)),
    ("mean=0.1,0.2,0.3,channels=1", ImagePreprocessing(mean=(0.1, 0.2, 0.3), channels=1)),
])
def test_preprocessing_of_the_command_line(text: str, wanted: ImagePreprocessing | None) -> None:
    assert parse_preprocessing(text) == wanted


@pytest.mark.parametrize(("text", "words"), [
    ("", "keys: size, mean, std, channels, interpolation, crop, fit, corner"), ("sise=64", "nearest: size"),
    ("size=a", "expected size=64 or 48x64"), ("size", "got size"), ("size=8x8x8", "got size=8x8x8"),
    ("mean=0.5,", "got mean=0.5,"), ("mean=0.1,,0.3", "got mean=0.1,,0.3"),
    ("size=1,2,3", "got size=1,2,3"), ("channels=3,4", "got channels=3,4"), ("0.5,mean=0.5", "unknown key"),
    ("mean=0.5/", "expected mean=0.5"), ("size=64,size=32", "once"), ("crop=2", "crop: expected at most 1"),
    ("size=-4", "at least 1"), ("interpolation=cubic", "unknown interpolation"),
])
def test_preprocessing_that_cannot_be_read(text: str, words: str) -> None:
    with pytest.raises(SutureError) as error:
        parse_preprocessing(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# -- texts ---------------------------------------------------------------------------------------------------

TEXTS = ["a cat sat on the mat", "dogs", "the dog sat on the cat and the mat and the dog"]
WORDS = ["a", "cat", "sat", "on", "the", "mat", "dog", "##s", "and", "un", "##seen"]


def bert(words: list[str] = WORDS, **options: Any) -> Any:
    """A small tokenizer of BERT's kind."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(vocab={w: i for i, w in enumerate([*special, *words])}, **options)


def gpt(merges: list[tuple[str, str]] | None = None, **options: Any) -> Any:
    """A byte-level tokenizer of GPT-2's kind, without a padding token."""
    from transformers import GPT2Tokenizer

    merges = [("c", "a"), ("ca", "t")] if merges is None else merges
    alphabet = [*"abcdefghijklmnopqrstuvwxyz", "\u0120", *("".join(m) for m in merges), "<|endoftext|>"]
    return GPT2Tokenizer(vocab={w: i for i, w in enumerate(alphabet)}, merges=merges, **options)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(("length", "most"), [(None, None), (6, None), (16, 20), (None, 7)])
def test_tokens_are_the_tokenizers_own(length: int | None, most: int | None) -> None:
    made = TextPreprocessing(bert(), length=length, most=most)(TEXTS)
    cut = length or most
    wanted = bert()(TEXTS, return_tensors="pt",
                    padding="max_length" if length else "longest", padding_side="right",
                    truncation=cut is not None, **({} if cut is None else {"max_length": cut}))
    assert set(made) == set(wanted) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(torch.equal(made[k], wanted[k]) and made[k].dtype == torch.int64 for k in made)


def test_without_a_padding_token_the_end_pads_and_the_mask_hides_it() -> None:
    tokenizer = gpt()
    made = TextPreprocessing(tokenizer, length=8)(["cat", "a cat"])
    assert made["input_ids"][0].tolist()[1:] == [tokenizer.eos_token_id] * 7
    assert made["attention_mask"].sum(1).tolist() == [1, 3]
    assert tokenizer.pad_token is None


def test_padding_is_on_the_right_whatever_the_tokenizer_says() -> None:
    made = TextPreprocessing(bert(padding_side="left"))(TEXTS)
    assert made["attention_mask"][1].tolist() == sorted(made["attention_mask"][1].tolist(), reverse=True)


@pytest.mark.parametrize(("own", "length", "most", "limit"), [
    (None, None, None, None), (9, None, None, 9), (9, None, 6, 6), (9, 12, None, 12), (9, 5, 6, 5),
    (None, None, 6, 6)])
def test_the_longest_text(own: int | None, length: int | None, most: int | None, limit: int | None) -> None:
    options = {} if own is None else {"model_max_length": own}
    p = TextPreprocessing(bert(**options), length=length, most=most)
    assert p.limit == limit
    assert p(["cat " * 40])["input_ids"].shape[1] == (limit or 42)


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_masks_have_the_share_and_the_kinds_of_devlin(rate: float) -> None:
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(np.random.default_rng(i).choice(words, 60)) for i in range(200)]
    p = TextPreprocessing(bert(words), mask_rate=rate)
    plain, made = TextPreprocessing(bert(words))(texts), p(texts)
    hit = made["labels"] != -100
    assert torch.equal(hit.sum(1), torch.full((200,), round(rate * 60)))
    assert torch.equal(made["labels"][hit], plain["input_ids"][hit])
    assert torch.equal(made["input_ids"][~hit], plain["input_ids"][~hit])
    now, n = made["input_ids"][hit], int(hit.sum())
    masked, same = now == p.tokenizer.mask_token_id, now == plain["input_ids"][hit]
    for share, wanted in ((masked, 0.8), (same, 0.1 + 0.1 / 200), (~masked & ~same, 0.1 - 0.1 / 200)):
        assert abs(share.float().mean() - wanted) < 4 * (wanted * (1 - wanted) / n) ** 0.5
    assert not set(now[~masked].tolist()) & {0, 1, 2, 3}
    assert hit.any(0)[1:61].all(), "every position is masked in some text"


def test_masks_follow_from_seed_and_text_alone() -> None:
    p = TextPreprocessing(bert(), mask_rate=0.3, seed=3)
    whole = p(TEXTS)
    assert (whole["labels"] != -100).sum(1).tolist() == [2, 1, 4], "of 6, 2 and 12 tokens"
    for i, text in enumerate(TEXTS):
        alone = p([text])
        n = alone["labels"].shape[1]
        assert torch.equal(alone["labels"][0], whole["labels"][i, :n])
        assert torch.equal(alone["input_ids"][0], whole["input_ids"][i, :n])
        assert (whole["labels"][i, n:] == -100).all()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = p(TEXTS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(again[k], whole[k]) for k in whole)
    else_ = dataclasses.replace(p, seed=4)(TEXTS)
    assert not torch.equal(else_["labels"], whole["labels"])


def test_networks_with_other_numbers_for_the_same_words_are_masked_alike() -> None:
    a, b = (TextPreprocessing(bert(w), mask_rate=0.3) for w in (WORDS, WORDS[::-1]))
    assert torch.equal(a(TEXTS)["labels"] == -100, b(TEXTS)["labels"] == -100)
    assert not torch.equal(a(TEXTS)["labels"], b(TEXTS)["labels"])


def test_a_name_tells_what_decides_the_result() -> None:
    p = TextPreprocessing(bert(), length=8, mask_rate=0.15, seed=2)
    twin = TextPreprocessing(bert(), length=8, mask_rate=0.15, seed=2, vocab=100)
    p(TEXTS)
    used = TextPreprocessing(p.tokenizer, length=8, mask_rate=0.15, seed=2)
    assert p == twin == used
    assert hash(p) == hash(twin)
    assert repr(p) == repr(twin)
    assert repr(p).startswith("TextPreprocessing(BertTokenizer, 16 tokens ")
    assert repr(p).endswith(", length=8, limit=8, mask_rate=0.15, seed=2)")
    others = [TextPreprocessing(bert(do_lower_case=False), length=8, mask_rate=0.15, seed=2),
              TextPreprocessing(bert(WORDS[::-1]), length=8, mask_rate=0.15, seed=2),
              TextPreprocessing(bert(truncation_side="left"), length=8, mask_rate=0.15, seed=2),
              *(dataclasses.replace(p, **{k: v})
                for k, v in (("length", 9), ("mask_rate", 0.2), ("seed", 3)))]
    assert all(p != o for o in others)
    assert p != "TextPreprocessing"


@pytest.mark.parametrize(("one", "other", "words"), [
    (TextPreprocessing(bert()), TextPreprocessing(bert(WORDS[::-1])), ""),
    (TextPreprocessing(bert()), TextPreprocessing(bert([w for w in WORDS if w != "##s"])),
     "token 1 of text 1 is 'dog' for one and 'dogs' for the other"),
    (TextPreprocessing(bert()), TextPreprocessing(gpt()), "token 0 of text 0 is 'special' for one and 'a'"),
    (TextPreprocessing(gpt()), TextPreprocessing(gpt([("c", "a"), ("ca", "t"), ("\u0120", "cat")])),
     "token 1 of text 0 is ' ' for one and 'cat'"),
    (TextPreprocessing(gpt()), TextPreprocessing(gpt(), most=9), "text 0 has 18 tokens for one and 9"),
    (TextPreprocessing(bert()), TextPreprocessing(bert(), length=9), "length None for one and 9"),
    (TextPreprocessing(bert(), mask_rate=0.1), TextPreprocessing(bert()), "mask rate 0.1 for one and 0.0"),
    (TextPreprocessing(bert(), mask_rate=0.1), TextPreprocessing(bert(), mask_rate=0.1, seed=1),
     "seed 0 for one"),
    (TextPreprocessing(bert()), TextPreprocessing(bert(), seed=1), ""),
    (TextPreprocessing(bert()), TextPreprocessing(bert(), most=5),
     "token 4 of text 0 is 'on' for one and 'special'"),
])
def test_the_same_tokens(one: TextPreprocessing, other: TextPreprocessing, words: str) -> None:
    message = explain_token_mismatch(one, other, TEXTS)
    assert words in message
    assert bool(message) == bool(words)
    assert not explain_token_mismatch(one, one, TEXTS)


def test_a_tokenizer_without_spans_is_told() -> None:
    class Slow:
        truncation_side, model_input_names, mask_token_id, pad_token_id, eos_token_id = (
            "right", ["input_ids"], 2, 0, 1)
        all_special_ids, model_max_length = [0, 1, 2], 10**30

        def __call__(self) -> None: ...

        def get_vocab(self) -> dict[str, int]:
            return {"a": 3}

        def num_special_tokens_to_add(self) -> int:
            return 0

    assert "Slow does not tell" in explain_token_mismatch(TextPreprocessing(bert()),
                                                          TextPreprocessing(Slow()), TEXTS)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: TextPreprocessing("bert"), "tokenizer of transformers, got str"),
    (lambda: TextPreprocessing(bert(), vocab=15), "network's 15 embeddings, BertTokenizer goes to 15"),
    (lambda: TextPreprocessing(bert(), length=2), "at least 3 tokens"),
    (lambda: TextPreprocessing(bert(), length=9, most=8), "at most the network's 8, got 9"),
    (lambda: TextPreprocessing(bert(), mask_rate=1.0), "mask_rate: expected below 1, got 1.0"),
    (lambda: TextPreprocessing(gpt(), mask_rate=0.15), "GPT2Tokenizer has no mask token"),
    (lambda: TextPreprocessing(bert())("a cat"), "write [text]"),
    (lambda: TextPreprocessing(bert())(["a cat", 3]), "got int at 1"),
    (lambda: TextPreprocessing(bert())([]), "got none"),
    (lambda: TextPreprocessing(gpt())(["cat", "", "cat"]), "text 1 has none"),
])
def test_what_is_no_text_preprocessing(make: Any, words: str) -> None:
    with pytest.raises(SutureError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_text_with_special_tokens_is_a_text() -> None:
    made = TextPreprocessing(bert(), mask_rate=0.15)([""])
    assert made["input_ids"].tolist() == [[2, 3]]
    assert (made["labels"] == -100).all()


def test_the_embeddings_may_just_fit() -> None:
    assert TextPreprocessing(bert(), vocab=16)(["cat"])["input_ids"].shape == (1, 3)


def test_the_vocabulary_may_have_gaps(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({}))
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "cat": 9}
    from transformers import BertTokenizer

    with pytest.raises(SutureError, match="goes to 9"):
        TextPreprocessing(BertTokenizer(vocab=words), vocab=9)
