"""One stitched network: fitted, called, trained further, saved, loaded, exported."""

from __future__ import annotations

import copy
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import suture
from suture import AlignmentRule, Paired, StitchedNetwork, SutureError, TaskRecipe
from suture._base import fingerprint_network
from suture.data import Batch
from suture.zoo import read_metadata, save_weights
from tests.support import tiny
from tests.support.kinds import SHAPES, inputs_for
from tests.support.kinds import network as kinded
from tests.support.tiny import data, images, labels, network, other, seeded, stitched

FIT = data()[0]


def by_hand(layer: nn.Module, x: Tensor) -> Tensor:
    """Tiny up to block1, the layer, the other Tiny from block2 on."""
    return torch.as_tensor(other().head(layer(network().block1(x)).mean((2, 3))))


@pytest.mark.parametrize("options", [{}, {"method": "tlm", "tlm": TaskRecipe(epochs=2, batch_size=16)},
                                     {"family": "rank:2"}, {"examples": 5}, {"family": "ridge:cv"}])
def test_it_is_the_front_the_layer_and_the_tail(options: dict[str, Any]) -> None:
    made = stitched(**options)
    torch.testing.assert_close(made(images(7)), by_hand(made.layer, images(7)), rtol=1e-4, atol=1e-5)
    assert made(images(1)).shape == (1, 3)
    assert [str(s) for s in made.sites] == ["block1", "block2"]


def test_the_layer_is_the_one_that_compare_fits() -> None:
    recipe = TaskRecipe(epochs=2, batch_size=16)
    whole = suture.compare(network(), other(), FIT, tlm=recipe, ood=None, device="cpu", indices=())
    for method in ("dm", "tlm"):
        layer = stitched(method=method, tlm=recipe).layer
        np.testing.assert_allclose(layer.weight.detach(), whole.arrays[f"{method}.weight/0/1"],
                                   rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.bias.detach(), whole.arrays[f"{method}.bias/0/1"],
                                   rtol=1e-4, atol=1e-5)


def test_examples_are_the_first_ones() -> None:
    few = suture.stitch(network(), "block1", other(), "block2", (FIT[0][:5], FIT[1][:5]), device="cpu")
    for batch_size in (2, 5, 256):
        torch.testing.assert_close(stitched(examples=5, batch_size=batch_size).layer.weight, few.layer.weight)
    with pytest.raises(SutureError, match="examples: expected at least 1, got 0"):
        stitched(examples=0)


def test_it_trains_further_and_only_the_layer_moves() -> None:
    made = stitched()
    before = copy.deepcopy(made.state_dict())
    made.train()
    assert made.training
    assert not any(m.training for n in (made.source_network, made.target_network)
                                     for m in n.modules())
    moving = [p for p in made.parameters() if p.requires_grad]
    assert {id(p) for p in moving} == {id(p) for p in made.layer.parameters()}
    optimizer = torch.optim.Adam(moving, 1e-2)
    first = last = None
    for _ in range(20):
        loss = nn.functional.cross_entropy(made(images()), labels())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = loss if first is None else first, loss
    assert first is not None
    assert last is not None
    assert last < first
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("layer."), name


def test_the_users_networks_are_not_touched() -> None:
    a, b = network().train(), other().train()
    prints = fingerprint_network(a), fingerprint_network(b)
    made = suture.stitch(a, "block1", b, "block2", FIT, device="cpu")
    made(images())
    assert (fingerprint_network(a), fingerprint_network(b)) == prints
    assert a.training
    assert b.training
    assert all(p.requires_grad for n in (a, b) for p in n.parameters())


@pytest.mark.parametrize("options", [{}, {"family": "orthogonal"}, {"family": "rank:2"},
                                     {"alignment": AlignmentRule(resize="nearest")}])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    made, path = stitched(**options), tmp_path / "stitched.safetensors"
    made.save(path)
    found = suture.load_stitched(path, network(), other())
    assert torch.equal(found(images()), made(images()))
    assert found.fit == json.loads(json.dumps(made.fit))
    assert found.fit["method"] == "dm"
    assert path.stat().st_size < 6000, "only the layer is stored"
    assert suture.load_stitched(path, network(), other(), images(4)).sites == made.sites


def test_a_layer_that_was_written_without_a_digest_loads(tmp_path: Path) -> None:
    path, made = tmp_path / "s.safetensors", stitched()
    made.save(path)
    with safe_open(path, "pt") as file:
        about = file.metadata()["about"]
    save_file(load_file(path), path, {"format": "suture.stitch/1", "about": about})
    found = suture.load_stitched(path, network(), other())
    assert torch.equal(found(images(4)), made(images(4)))


def test_two_networks_with_inputs_of_their_own(tmp_path: Path) -> None:
    a, b = "sequence 12", "map 4x4"
    with pytest.raises(SutureError, match="no patches"):
        suture.stitch(kinded(a), "site", kinded(b), "site", _paired(a, b), device="cpu")
    a = "vector"
    b = "sequence 12"
    made = suture.stitch(kinded(a), "site", kinded(b), "site", _paired(a, b), device="cpu")
    wanted = made.run(inputs_for(SHAPES[a], 9), inputs_for(SHAPES[b], 9))
    made.save(tmp_path / "s.safetensors")
    for inputs in (None, Batch(inputs_for(SHAPES[a], 4), inputs_for(SHAPES[b], 4), None)):
        found = suture.load_stitched(tmp_path / "s.safetensors", kinded(a), kinded(b), inputs)
        assert torch.equal(found.run(inputs_for(SHAPES[a], 9), inputs_for(SHAPES[b], 9)), wanted)


def _paired(a: str, b: str) -> Paired:
    return Paired(*([(inputs_for(SHAPES[k]), torch.zeros(120, dtype=torch.long))] for k in (a, b)))


class Keywords(nn.Module):
    """A network called by keywords that returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.block(self.embed(ids))) * attention_mask[..., None]
        return {"logits": self.head(h.sum(1) / attention_mask.sum(1, keepdim=True))}


def test_batches_by_keyword(tmp_path: Path) -> None:
    net = seeded(Keywords).eval()
    batch = {"ids": torch.arange(60).view(12, 5) % 9, "attention_mask": torch.ones(12, 5, dtype=torch.long)}
    made = suture.stitch(net, "block", net, "block", [batch | {"labels": torch.zeros(12, dtype=torch.long)}],
                         device="cpu")
    torch.testing.assert_close(made(**batch)["logits"], net(**batch)["logits"], rtol=1e-4, atol=1e-4)
    made.save(tmp_path / "s.safetensors")
    found = suture.load_stitched(tmp_path / "s.safetensors", net, net)
    assert torch.equal(found(**batch)["logits"], made(**batch)["logits"])


def test_it_can_be_copied_moved_and_exported() -> None:
    made = stitched()
    twin = copy.deepcopy(made)
    with torch.no_grad():
        twin.layer.bias.add_(1)
    assert not torch.equal(twin(images()), made(images()))
    program = torch.export.export(made, (images(6),), strict=False)
    torch.testing.assert_close(program.module()(images(6)), made(images(6)), rtol=1e-4, atol=1e-5)


# -- bad input -----------------------------------------------------------------------------------------------

def test_a_layer_is_not_loaded_onto_other_weights(tmp_path: Path) -> None:
    path = tmp_path / "stitched.safetensors"
    stitched().save(path)
    with pytest.raises(SutureError, match="expected the target network that the layer was fitted to"):
        suture.load_stitched(path, network(), network())
    changed = network()
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0].add_(1e-6)
    with pytest.raises(SutureError, match="expected the source network that the layer was fitted to"):
        suture.load_stitched(path, changed, other())


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(network(), path)
    with pytest.raises(SutureError, match=r"suture.stitch.*got suture.weights"):
        suture.load_stitched(path, network(), other())
    with pytest.raises(SutureError, match="no weights at"):
        read_metadata(tmp_path / "nothing.safetensors")
    with pytest.raises(SutureError, match="safetensors"):
        stitched().save(tmp_path / "stitched.pt")


@pytest.mark.parametrize(("options", "words"), [
    ({"family": "diagonal"}, "diagonal"), ({"family": "rank:9"}, "rank"),
    ({"method": "tml"}, "unknown method 'tml'"), ({"method": "tlm", "family": "ridge:cv"}, "ridge:cv"),
    ({"method": "tlm", "tlm": TaskRecipe(epochs=2, lr=1e30, batch_size=8, optimizer="sgd")}, "not finite"),
])
def test_what_cannot_be_fitted_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SutureError, match=words):
        stitched(**options)


def test_inputs_of_another_size_are_refused() -> None:
    made = stitched()
    with pytest.raises(SutureError, match="give inputs of the size"):
        StitchedNetwork(network(), other(), made.sites, made.layer, images()[:, :, :4, :4])


def test_a_saved_stitched_network_keeps_how_its_sites_are_taken(tmp_path: Path) -> None:
    network, x = tiny.network(), tiny.images()
    made = suture.stitch(network, "block1@map:last", network, "block1@map:last",
                         (x, tiny.labels()), device="cpu")
    made.save(tmp_path / "layer.safetensors")
    found = suture.load_stitched(tmp_path / "layer.safetensors", network, network)
    assert [s.written for s in found.sites] == ["block1@map:last"] * 2
    torch.testing.assert_close(found(x), made(x))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_stopped_goes_on_to_the_same_layer(tmp_path: Path, sent: signal.Signals) -> None:
    def fit(**options: Any) -> suture.StitchedNetwork:
        return tiny.stitched(**{"method": "tlm", "tlm": suture.TaskRecipe(epochs=3, batch_size=8)} | options)

    def stop(stage: str, done: int, total: int | None) -> None:
        seen.append(stage)
        if (stage, done) == ("task loss matching", 5):
            os.kill(os.getpid(), sent)

    out, seen = tmp_path / "s.safetensors", list[str]()
    with pytest.raises(KeyboardInterrupt, match=r"kept in .*s\.safetensors.*the same call goes on"):
        fit(save_to=out, progress=stop)
    with pytest.raises(SutureError, match="restart"):
        fit(save_to=out, seed=3)
    with pytest.raises(SutureError, match="nowhere"):
        tiny.stitch(network(), "nowhere", other(), "block2", tiny.data()[0], save_to=out, restart=True)
    assert os.listdir(tmp_path) == ["s.safetensors.checkpoint-task-loss-matching"]
    made = fit(save_to=out, progress=lambda stage, done, total: seen.append(stage))
    assert "went on from a checkpoint of task loss matching" in seen
    assert os.listdir(tmp_path) == ["s.safetensors"]
    whole = fit()
    for found in (made, suture.load_stitched(out, network(), other())):
        assert all(torch.equal(a, b) for a, b in zip(found.layer.parameters(), whole.layer.parameters(),
                                                     strict=True))
        assert found.fit == whole.fit
