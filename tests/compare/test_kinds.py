"""Comparisons of networks of signals (N, C, T) and of volumes (N, C, D, H, W), with default settings."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from suture.networks import capture
from tests.support import references
from tests.support.networks import NETWORKS, noise

N = 60
LABELS = torch.arange(N) % 4
SITES = {"signal": "blocks.1", "volume": "1"}


def inputs(name: str) -> Tensor:
    return noise(N, *NETWORKS[name]()[1].shape[1:])


def rows(x: Tensor) -> np.ndarray:
    return x.double().movedim(1, -1).flatten(0, -2).numpy()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.GRU(2, 7, batch_first=True), nn.GRU(7, 6, batch_first=True)])
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x)[0]
        return self.head(x.mean(1))


def other(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network, _ = NETWORKS[name]()
        for p in network.parameters():
            p.data.add_(0.3 * torch.randn_like(p))
    return network


@pytest.mark.parametrize("name", SITES)
def test_channels_are_features_and_positions_are_rows(name: str) -> None:
    """CKA of two networks equals a slow reference, by position, pooled and flattened."""
    (a, _), b, x = NETWORKS[name](), other(name), inputs(name)
    r = suture.compare(a, b, (x, LABELS), methods=["dm"], ood=None, sites=[SITES[name]],
                       indices=["cka", "cka@pool", "cka@flatten"])
    u, v = (capture(n, x, [SITES[name]])[SITES[name]] for n in (a, b))
    found = {m: r.matrix(m).values[0, 0] for m in ("cka", "cka@pool", "cka@flatten")}
    z, w = rows(u), rows(v)
    z, w = z - z.mean(0), w - w.mean(0)
    cka = np.linalg.norm(z.T @ w) ** 2 / np.linalg.norm(z.T @ z) / np.linalg.norm(w.T @ w)
    assert found["cka"] == pytest.approx(cka, abs=1e-5)
    pooled = [t.double().flatten(2).mean(2).numpy() for t in (u, v)]
    assert found["cka@pool"] == pytest.approx(references.cka(*pooled), abs=1e-5)
    flat = [t.double().flatten(1).numpy() for t in (u, v)]
    assert found["cka@flatten"] == pytest.approx(references.cka(*flat), abs=1e-5)


def test_permuted_channels_change_nothing() -> None:
    """The same function: one convolution's outputs and the next one's inputs are permuted."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a = nn.Sequential(nn.Sequential(nn.Conv1d(1, 8, 5, padding=2), nn.ReLU()),
                          nn.Sequential(nn.Conv1d(8, 8, 5, padding=2), nn.ReLU()),
                          nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
    b, x = copy.deepcopy(a), noise(N, 1, 24)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        b[0][0].weight.copy_(a[0][0].weight[order])
        b[0][0].bias.copy_(a[0][0].bias[order])
        b[1][0].weight.copy_(a[1][0].weight[:, order])
    r = suture.compare(a, b, (x, LABELS), methods=["dm"], ood=None)
    assert r.matrix("cka").values[0, 0] == pytest.approx(1, abs=1e-5)
    assert r.matrix("dm.r2").values[0, 0] == pytest.approx(1, abs=1e-6)
    assert r.matrix("dm.agreement").values[0, 0] == 1


@pytest.mark.parametrize(("source", "target"), [("signal", "signal"), ("volume", "volume"),
                                                ("signal", "recurrent"), ("recurrent", "signal")])
def test_a_comparison_runs_with_default_settings(source: str, target: str) -> None:
    made = {"recurrent": Recurrent().eval()} | {name: NETWORKS[name]()[0] for name in SITES}
    x = inputs("volume" if source == "volume" else "signal")
    r = suture.compare(made[source], made[target] if target != source else other(target), (x, LABELS),
                       tlm=TaskRecipe(epochs=1, batch_size=30))
    for measure in ("cka", "dm.agreement", "tlm.agreement"):
        assert np.isfinite(r.matrix(measure).to_numpy(dtype=float)).all(), measure


def test_a_stitched_network_of_signals_is_saved_and_loaded(tmp_path: Any) -> None:
    (a, _), b, x = NETWORKS["signal"](), Recurrent().eval(), inputs("signal")
    made = suture.stitch(a, "blocks.0", b, "layers.0:0", (x, LABELS))
    made.save(tmp_path / "s.safetensors")
    again = suture.load_stitched(tmp_path / "s.safetensors", a, b, x)
    torch.testing.assert_close(again(x), made(x))


def test_what_does_not_suit_is_refused_in_one_line() -> None:
    (a, _), x = NETWORKS["signal"](), inputs("signal")
    with pytest.raises(SutureError, match=r"images \(N, C, H, W\) to crop and flip.*crop=0, flip=False"):
        suture.compare(a, data=(x, LABELS), tlm=TaskRecipe(epochs=1, crop=2), ood=None)
    volume, y = NETWORKS["volume"]()[0], inputs("volume")
    with pytest.raises(SutureError, match="leave energy out of detectors"):
        suture.compare(volume, data=(y, LABELS), methods=["dm"],
                       ood=suture.OOD(("energy",), auxiliary=y * 3,
                                      energy=suture.EnergyRecipe(epochs=1, tune_epochs=0)))


def test_energy_detectors_are_trained_on_signals() -> None:
    (a, _), x = NETWORKS["signal"](), inputs("signal")
    r = suture.compare(a, data=(x, LABELS), methods=["dm"], sites=["blocks.0"],
                       ood=suture.OOD(("energy",), auxiliary=x * 3,
                                      energy=suture.EnergyRecipe(epochs=1, tune_epochs=1)))
    assert np.isfinite(r.arrays["native.energy"]).all()


def test_tokens_of_a_text_and_its_maps_count_by_the_mask() -> None:
    """Convolutions over the words of a text: padding enters nothing, whatever it holds."""
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 6)
            self.convs = nn.ModuleList([nn.Conv1d(6, 6, 1), nn.Conv1d(6, 5, 1)])
            self.head = nn.Linear(5, 4)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = self.embed(input_ids).transpose(1, 2)
            for conv in self.convs:
                x = conv(x).tanh()
            kept = attention_mask[:, None].float()
            return self.head((x * kept).sum(2) / kept.sum(2))

    network = Words().eval()
    ids = torch.randint(1, 20, (N, 9), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(9) < 3 + torch.arange(N)[:, None] % 7).long()
    filled = [{"input_ids": ids * mask + fill * (1 - mask), "attention_mask": mask} for fill in (0, 7)]
    results = [suture.compare(network, data=[(x, LABELS)], methods=["dm"], ood=None,
                              indices=["cka", "cka@pool", "pwcca"]) for x in filled]
    assert str(suture.find_sites(network, {"input_ids": ids, "attention_mask": mask})[0].shape) == "map ~6x9"
    for measure in ("cka", "cka@pool", "pwcca", "dm.r2"):
        one, two = (r.matrix(measure).to_numpy(dtype=float) for r in results)
        np.testing.assert_allclose(one, two, rtol=1e-5)
    u, v = (capture(network, {"input_ids": ids, "attention_mask": mask}, [s])[s].movedim(1, -1)[mask.bool()]
            for s in ("convs.0", "convs.1"))
    z, w = (t.double().numpy() - t.double().numpy().mean(0) for t in (u, v))
    wanted = np.linalg.norm(z.T @ w) ** 2 / np.linalg.norm(z.T @ z) / np.linalg.norm(w.T @ w)
    assert results[0].matrix("cka").to_numpy(dtype=float)[0, 1] == pytest.approx(wanted, abs=1e-5)
