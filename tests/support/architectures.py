"""Small networks of transformers with random weights: what makes them, and what their default sites are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

Inputs = dict[str, Tensor]
N = 5


def images() -> Inputs:
    return {"pixel_values": torch.rand(N, 3, 32, 32, generator=torch.Generator().manual_seed(1))}


def texts() -> Inputs:
    """Token ids with padding on the right."""
    ids = torch.randint(5, 40, (N, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for i in range(N):
        mask[i, 9 - i % 4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class Architecture:
    """A model class with a small config; the paths of its blocks, written with numbers, and their shape in
    words."""

    make: type[nn.Module]
    config: Any
    inputs: Callable[[], Inputs]
    sites: tuple[str, ...]
    shapes: tuple[str, ...]

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = self.make(self.config)
            # Fresh batch norms do nothing, and would hide what is wrong with them.
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(0, 0.3)
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
        return network.eval()


D = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
V = {"vocab_size": 50, "max_position_embeddings": 24}
I = {"image_size": 32, "patch_size": 8}  # noqa: E741
DECODER = {**D, "vocab_size": 50, "num_key_value_heads": 1, "max_position_embeddings": 32, "pad_token_id": 0}
STAGES: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]}
SWIN: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2],
                        "num_heads": [1, 2], "window_size": 4}
TEXT = ("tokens ~9x32",) * 3


def _layers(path: str, n: int = 3) -> tuple[str, ...]:
    return tuple(path.format(k) for k in range(n))


def _stages(path: str) -> tuple[str, ...]:
    return tuple(path.format(i, k) for i in range(2) for k in range(2))


def _blocks(path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _stages(path), ("map 8x8x8",) * 2 + ("map 16x4x4",) * 2


def _of_text(make: type[nn.Module], config: Any, path: str) -> Architecture:
    return Architecture(make, config, texts, _layers(path), TEXT)


def _of_patches(make: type[nn.Module], config: Any, path: str, shape: str) -> Architecture:
    return Architecture(make, config, images, _layers(path), (shape,) * 3)


_SWIN = (_stages("swin.encoder.layers.{}.blocks.{}"),
         ("tokens 64x8 (8x8 patches)",) * 2 + ("tokens 16x16 (4x4 patches)",) * 2)
_PATCHES = "tokens 17x32 (1 prefix, 4x4 patches)"

ARCHITECTURES: dict[str, Architecture] = {
    "vit": _of_patches(hf.ViTForImageClassification, hf.ViTConfig(**D, **I), "vit.layers.{}", _PATCHES),
    "vit, no head": _of_patches(hf.ViTModel, hf.ViTConfig(**D, **I), "layers.{}", _PATCHES),
    "deit": _of_patches(hf.DeiTForImageClassificationWithTeacher, hf.DeiTConfig(**D, **I), "deit.layers.{}",
                        "tokens 18x32 (2 prefix, 4x4 patches)"),
    "beit": _of_patches(hf.BeitForImageClassification, hf.BeitConfig(**D, **I), "beit.layers.{}", _PATCHES),
    "dinov2, registers": _of_patches(
        hf.Dinov2WithRegistersForImageClassification,
        hf.Dinov2WithRegistersConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, **I),
        "dinov2_with_registers.encoder.layer.{}", "tokens 21x32 (5 prefix, 4x4 patches)"),
    "resnet": Architecture(hf.ResNetForImageClassification, hf.ResNetConfig(layer_type="basic", **STAGES),
                           images, *_blocks("resnet.encoder.stages.{}.layers.{}")),
    "resnet, bottlenecks": Architecture(hf.ResNetForImageClassification, hf.ResNetConfig(**STAGES), images,
                                        *_blocks("resnet.encoder.stages.{}.layers.{}")),
    "regnet": Architecture(hf.RegNetForImageClassification, hf.RegNetConfig(groups_width=4, **STAGES), images,
                           *_blocks("regnet.encoder.stages.{}.layers.{}")),
    "convnext": Architecture(hf.ConvNextForImageClassification,
                             hf.ConvNextConfig(hidden_sizes=[8, 16], depths=[2, 2], num_stages=2), images,
                             *_blocks("convnext.encoder.stages.{}.layers.{}")),
    "swin": Architecture(hf.SwinForImageClassification, hf.SwinConfig(**SWIN), images, *_SWIN),
    "bert": _of_text(hf.BertForSequenceClassification, hf.BertConfig(**D, **V), "bert.encoder.layer.{}"),
    "bert, no head": _of_text(hf.BertModel, hf.BertConfig(**D, **V), "encoder.layer.{}"),
    "bert, masked": _of_text(hf.BertForMaskedLM, hf.BertConfig(**D, **V), "bert.encoder.layer.{}"),
    "distilbert": _of_text(hf.DistilBertForSequenceClassification,
                           hf.DistilBertConfig(vocab_size=50, max_position_embeddings=24, dim=32, n_layers=3,
                                               n_heads=2, hidden_dim=48), "distilbert.transformer.layer.{}"),
    "roberta": _of_text(hf.RobertaForSequenceClassification, hf.RobertaConfig(**D, **V),
                        "roberta.encoder.layer.{}"),
    "albert": Architecture(hf.AlbertForSequenceClassification, hf.AlbertConfig(**D, **V, embedding_size=16),
                           texts,
                           tuple(f"albert.encoder.albert_layer_groups.0{n}" for n in ("", "#1", "#2")), TEXT),
    "electra": _of_text(hf.ElectraForSequenceClassification, hf.ElectraConfig(**D, **V, embedding_size=16),
                        "electra.encoder.layer.{}"),
    "t5 encoder": _of_text(hf.T5EncoderModel, hf.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48,
                                                          num_layers=3, num_heads=2), "encoder.block.{}"),
    "gpt2": _of_text(hf.GPT2LMHeadModel, hf.GPT2Config(vocab_size=50, n_positions=24, n_embd=32, n_layer=3,
                                                       n_head=2), "transformer.h.{}"),
    "gpt2, no cache": _of_text(hf.GPT2Model, hf.GPT2Config(vocab_size=50, n_positions=24, n_embd=32,
                                                           n_layer=3, n_head=2, use_cache=False), "h.{}"),
    "llama": _of_text(hf.LlamaForCausalLM, hf.LlamaConfig(**DECODER), "model.layers.{}"),
    "mistral": _of_text(hf.MistralForCausalLM, hf.MistralConfig(**DECODER, sliding_window=4),
                        "model.layers.{}"),
    "qwen2": _of_text(hf.Qwen2ForSequenceClassification, hf.Qwen2Config(**DECODER), "model.layers.{}"),
    "gpt-neox": _of_text(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig(**D, vocab_size=50), "gpt_neox.layers.{}"),
    "opt": _of_text(hf.OPTForCausalLM, hf.OPTConfig(vocab_size=50, hidden_size=32, word_embed_proj_dim=32,
                                                    num_hidden_layers=3, ffn_dim=48, num_attention_heads=2,
                                                    max_position_embeddings=32), "model.decoder.layers.{}"),
    "mamba": Architecture(hf.MambaForCausalLM,
                          hf.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=3, state_size=4),
                          texts, _layers("backbone.layers.{}"), ("tokens ~9x16",) * 3),
}
