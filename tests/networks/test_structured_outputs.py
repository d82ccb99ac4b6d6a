"""Detectors, segmentation and video: lists of images, dictionaries, and maps with a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import suture
from suture import SutureError

NAMES = ["blocks.0", "blocks.1"]


class Backbone(nn.Module):
    """A stem and two blocks."""

    def __init__(self, conv: Any = nn.Conv2d) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = conv(3, 6, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(conv(6, 6, 3, padding=1), nn.ReLU()) for _ in range(2))

    def run(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


class Detector(Backbone):
    """Boxes of several images: losses in train mode, one dictionary for each image in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes, self.classes = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 3, 1)

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        x = self.run(torch.cat([F.interpolate(i[None], (8, 8)) for i in images]))
        boxes, scores = self.boxes(x).flatten(2), self.classes(x).flatten(2).softmax(1)
        if self.training:
            return {"loss": boxes.mean() + scores.mean()}
        best, labels = scores.max(1)
        return [{"boxes": b.T[k], "labels": c[k], "scores": s[k]} for b, c, s, k in zip(
            boxes, labels, best, best > best.mean(1, keepdim=True), strict=True)]


class Segmenter(Backbone):
    """Logits (N, 4, H, W) for each pixel, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.aux_head = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.run(x)
        return {"out": self.head(x), "aux": self.aux_head(x)}


class Video(Backbone):
    """Logits of clips (N, 3, T, H, W)."""

    def __init__(self) -> None:
        super().__init__(nn.Conv3d)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.run(x).mean((2, 3, 4)))
        return out


IMAGES = [torch.randn(3, 7 + k % 3, 9, generator=torch.Generator().manual_seed(k)) for k in range(6)]
TARGETS = [{"boxes": torch.rand(2, 4), "labels": torch.tensor([1, 2])}] * 6


def test_a_detector_is_captured_and_compared_by_its_indices() -> None:
    net = Detector()
    whole = torch.cat([F.interpolate(i[None], (8, 8)) for i in IMAGES])
    wanted = dict(zip(NAMES, (net.blocks[0](net.stem(whole)), net.run(whole)), strict=True))
    found = suture.capture(net, (IMAGES,))
    assert list(found) == NAMES
    assert all(torch.allclose(found[k], wanted[k], atol=1e-6) for k in NAMES)
    assert net.training  # as it was
    rows = [wanted[k].detach().permute(0, 2, 3, 1).reshape(-1, 6).double() for k in NAMES]
    a, b = (x - x.mean(0) for x in rows)
    cka = float((a.T @ b).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm()))
    result = suture.compare(net, None, [(IMAGES, TARGETS)], methods=[], indices=["cka"])
    assert abs(result.matrix("cka").loc["blocks.0", "blocks.1"] - cka) < 1e-4
    for output in (None, "0.boxes"):
        with pytest.raises(SutureError, match=r"list of 4 dictionaries.*methods=\[\]"):
            suture.compare(net, None, [(IMAGES, TARGETS)], methods=["dm"], ood=None, output=output)


def test_segmentation_is_scored_by_its_output() -> None:
    net, data = Segmenter(), (torch.randn(12, 3, 8, 8), torch.randint(0, 4, (12, 8, 8)))
    assert {k: tuple(x.shape) for k, x in suture.capture(net, data[0]).items()} == dict.fromkeys(
        NAMES, (12, 6, 8, 8))
    result = suture.compare(net, None, data, methods=["dm"], ood=None, indices=[])
    own = result.matrix("dm.output_r2")
    assert min(own.loc[k, k] for k in NAMES) > 0.999
    assert any("'out' is scored" in note for note in result.meta["notes"])
    with pytest.raises(SutureError, match=r"needs logits.*methods=\['dm'\]"):
        suture.compare(net, None, data)


def test_video_runs() -> None:
    net, clips = Video(), torch.randn(8, 3, 4, 6, 6)
    assert [str(i.shape) for i in suture.find_sites(net, clips)] == ["map 6x4x6x6"] * 2
    result = suture.compare(net, None, (clips, net(clips).argmax(1)), methods=["dm"], ood=None, indices=[])
    assert min(result.matrix("dm.accuracy").loc[k, k] for k in NAMES) == 1


class Pyramid(Backbone):
    """A detection backbone: maps of two levels by name, the second one from both blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        one = self.blocks[0](self.stem(x))
        two = self.blocks[1](one)
        return {"0": self.lateral(one) + self.lateral(two), "1": self.lateral(two)}


class Graph(nn.Module):
    """Logits of the nodes of one graph: each layer adds what comes over the edges."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(2)), nn.Linear(5, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(x)
            x = torch.relu(h.index_add(0, edge_index[1], h[edge_index[0]]))
        out: Tensor = self.head(x)
        return out


IMAGE = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EDGES = torch.randint(0, 12, (2, 40), generator=torch.Generator().manual_seed(1))
NODES = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
BRIEF: dict[str, Any] = {"methods": ["dm"], "ood": None, "indices": ["cka"], "device": "cpu"}


def test_a_pyramid_of_maps_runs_everywhere() -> None:
    net, other = Pyramid(), Pyramid()
    with pytest.raises(SutureError, match=r"blocks.0 goes around it.*allow_bypass"):
        suture.compare(net, other, [(IMAGE,)], sites=["blocks.1"], **BRIEF)
    given = BRIEF | {"sites": NAMES, "allow_bypass": True, "output": "1"}
    assert suture.dry_run(net, None, [(IMAGE,)], **given).names == ("Pyramid", "Pyramid")
    result = suture.compare(net, None, [(IMAGE,)], **given)
    own = [float(result.matrix("dm.output_r2").loc[k, k]) for k in NAMES]
    assert own == pytest.approx([1, 1], abs=1e-4)
    made = suture.stitch(net, "blocks.0", other, "blocks.0", [(IMAGE,)], output="1", allow_bypass=True)
    assert sorted(made(IMAGE)) == ["0", "1"]


@pytest.mark.parametrize("call", [
    lambda net, given: suture.find_sites(net, given[0]),
    lambda net, given: suture.capture(net, given[0], NAMES),
    lambda net, given: suture.compare(net, None, [given], **BRIEF),
    lambda net, given: suture.dry_run(net, net, [given[:1]], **BRIEF),
    lambda net, given: suture.stitch(net, NAMES[0], Graph(), NAMES[1], [given])])
@pytest.mark.parametrize("edges", [EDGES, EDGES[:, :12]], ids=["edges", "as many edges as nodes"])
def test_one_graph_is_refused_with_what_to_give(call: Any, edges: Tensor) -> None:
    with pytest.raises(SutureError, match=r"of graphs give dense ones: x \(N, nodes, D\) and adjacency"):
        call(Graph(), ((NODES, edges), torch.arange(12) % 3))
