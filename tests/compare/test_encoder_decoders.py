"""Encoder-decoders: each position counts by the mask of its own input sequence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import suture
from suture.networks import complete_decoder_inputs, find_sites
from tests.support.encoder_decoders import (
    KINDS,
    OWN,
    Translator,
    capture_alone,
    compute_cka,
    draw_texts,
    make_t5,
    pad,
    pad_pairs,
    seeded,
)


@pytest.mark.parametrize(("kind", "length"), [("own", 6), ("own", 9), ("t5", 6), ("bart", 9)])
def test_sites_count_by_their_own_mask(kind, length):
    """Of decoders with shorter inputs than the encoder's, and with inputs of the same length."""
    make, (names, masks), value, encoder, decoder = KINDS[kind]
    one, two, a, b = seeded(make, 0), seeded(make, 1), draw_texts(9, 0), draw_texts(length, 1)
    data = [pad_pairs(names, masks, a, b, value)]
    assert [str(i.site) for i in find_sites(one, data[0])] == [decoder.format(k) for k in range(3)]
    sites = [encoder.format(0), decoder.format(0)]
    result = suture.compare(one, two, data, data, sites=sites, methods=["dm"], ood=None,
                            indices=["cka", "cka@pool"])
    for k, site in enumerate(sites):
        wanted = compute_cka(*(capture_alone(n, names, a, b, site) for n in (one, two)))
        assert result.matrix("cka").values[k, k] == pytest.approx(wanted, rel=1e-4)
    assert np.isnan(result.matrix("cka").values[[0, 1], [1, 0]]).all()
    assert np.isfinite(result.matrix("cka@pool").values).all()
    assert np.isnan(result.matrix("dm.agreement").values[[0, 1], [1, 0]]).all()
    assert {(i, j) for i, j, _ in result.meta["excluded"]} == {(0, 1), (1, 0)}


def test_unaligned_cells_end_no_stage():
    a, b = draw_texts(6, 0), draw_texts(6, 1)
    data = [pad_pairs(*OWN, a, b, 0)]
    result = suture.compare(seeded(Translator, 0), None, data, data, sites=["readers.0", "writers.0"],
                            methods=["dm", "tlm"], tlm=suture.TaskRecipe(epochs=1),
                            indices=["cka", "jaccard"], ood=["mahalanobis"])
    for measure in ("jaccard", "dm.frechet", "tlm.accuracy", "dm.auroc_mahalanobis"):
        values = result.matrix(measure).values
        assert np.isnan(values[[0, 1], [1, 0]]).all()
        assert np.isfinite(values[[0, 1], [0, 1]]).all(), measure


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_labels_alone_make_the_decoders_inputs(kind):
    make, (names, _), value, _, decoder = KINDS[kind]
    one, a, y = seeded(make, 0), draw_texts(9, 0), draw_texts(6, 1)
    site = decoder.format(1)
    batch = {"input_ids": pad(a, value), "attention_mask": pad([torch.ones_like(t) for t in a], 0),
             "labels": pad(y, -100)}
    result = suture.compare(one, seeded(make, 1), [batch], [batch], sites=[site], methods=["dm"], ood=None,
                            indices=["cka"])
    b = [one.prepare_decoder_input_ids_from_labels(t[None])[0] for t in y]
    assert result.meta["settings"]["task"] == "tokens"
    wanted = compute_cka(*(capture_alone(n, names, a, b, site) for n in (one, seeded(make, 1))))
    assert result.matrix("cka").values[0, 0] == pytest.approx(wanted, rel=1e-4)
    hits = torch.cat([seeded(make, 1)(input_ids=s[None], decoder_input_ids=t[None]).logits[0].argmax(-1) == w
                      for s, t, w in zip(a, b, y, strict=True)])
    assert result.meta["target_accuracy"] == pytest.approx(float(hits.float().mean()))


@pytest.mark.parametrize("length", [6, 9])
def test_a_saved_layer_of_a_decoder_is_loaded_without_inputs(length, tmp_path):
    networks = seeded(Translator, 0), seeded(Translator, 1)
    data = [pad_pairs(*OWN, draw_texts(9, 0), draw_texts(length, 1), 0)]
    made = suture.stitch(networks[0], "writers.0", networks[1], "writers.0", data)
    made.save(tmp_path / "layer.safetensors")
    loaded = suture.load_stitched(tmp_path / "layer.safetensors", *networks)
    assert torch.equal(loaded(**data[0]), made(**data[0]))


def test_mask_of_a_decoder_ends_before_the_padding_of_its_ids():
    ids = torch.tensor([[0, 5, 0, 6], [0, 7, 0, 0]])
    found = complete_decoder_inputs(make_t5(), {"decoder_input_ids": ids}, None)
    assert found["decoder_attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_speech_to_text_has_the_decoders_blocks():
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    network = seeded(lambda: WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=20, num_mel_bins=4, d_model=8, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
        max_source_positions=10, max_target_positions=12, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        decoder_start_token_id=3)), 0)
    inputs = {"input_features": torch.randn(4, 4, 20), "decoder_input_ids": torch.randint(4, 20, (4, 6))}
    found = find_sites(network, inputs)
    assert [str(i.site) for i in found] == [f"model.decoder.layers.{k}" for k in range(3)]
    assert found[0].context == ("model.encoder",)
    assert found[0].bypass == ()
