"""Forms in which a batch comes: lists of examples, arrays, sparse tensors, data classes, graphs."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import suture
from suture import SutureError
from suture._base import ExampleList, count_examples
from suture.data import cut_batch
from suture.data.batches import Batches
from tests.support.tiny import seeded

X, Y = torch.rand(12, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
IMAGES = [torch.rand(3, 5 + i % 3, 6, generator=torch.Generator().manual_seed(i)) for i in range(12)]
TARGETS = [{"boxes": torch.rand(2, 4), "labels": torch.ones(2)} for _ in IMAGES]
EDGES = torch.stack([torch.arange(12), torch.arange(12).roll(1)])
Pair = namedtuple("Pair", "x weight")
OPTIONS: dict[str, Any] = {"methods": ["dm"], "ood": None, "device": "cpu", "indices": ["cka"]}


@dataclass(frozen=True)
class Given:
    x: Any
    scale: float = 1.0


class Net(nn.Module):
    """Blocks on vectors (N, 8), which `read` makes of the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(8, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2)])

    def read(self, x: Any) -> Tensor:
        return x

    def forward(self, x: Any) -> Tensor:
        h = self.enter(self.read(x))
        for block in self.blocks:
            h = block(h)
        return self.head(h)


class OfImages(Net):
    """Images of any sizes, one at a time, as a detector resizes them."""

    def read(self, x: Any) -> Tensor:
        assert isinstance(x, list)
        return torch.stack([F.interpolate(i[None], (2, 4))[0, 0].flatten() for i in x])

    def forward(self, images: Any, targets: Any = None) -> Tensor:
        assert targets is None or (len(targets) == len(images) and "boxes" in targets[0])
        return super().forward(images)


class OfAttribute(Net):
    def read(self, x: Any) -> Tensor:
        return x.x


class OfMapping(Net):
    def read(self, x: Any) -> Tensor:
        return x["a"]["x"] + x["b"][0]


class Graph(Net):
    """Sums over the neighbours of a node."""

    def forward(self, x: Any, edges: Any) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = block(edges @ h if edges.is_floating_point() else h[edges[0]] + h[edges[1]])
        return self.head(h)


def _compare(network: type[Net], data: Any, **options: Any) -> Any:
    return suture.compare(seeded(network), data=data, **OPTIONS | options)


@cache
def _compare_plain(whole: bool) -> Any:
    """Compare on what all images and all forms of vectors stand for."""
    return _compare(Net, (PIXELS, Y)) if whole else _compare(Net, (X, Y), methods=[])


def _get_cka(made: Any) -> float:
    return float(made.matrix("cka").iloc[0, 1])


PIXELS = torch.stack([F.interpolate(i[None], (2, 4))[0, 0].flatten() for i in IMAGES])
LISTS = {
    "a list with labels": (IMAGES, Y), "a list in a tuple": ((IMAGES,), Y), "a tuple": (tuple(IMAGES), Y),
    "images and targets": ((IMAGES, TARGETS), Y), "by name": ({"images": IMAGES}, Y),
    "names and labels in one": {"images": IMAGES, "targets": TARGETS, "labels": Y},
}


@pytest.mark.parametrize("form", LISTS)
def test_a_list_of_images_is_one_argument_of_one_example_each(form: str) -> None:
    made = _compare(OfImages, [LISTS[form]], batch_size=5)
    plain = _compare_plain(True)
    assert _get_cka(made) == pytest.approx(_get_cka(plain), abs=1e-6)
    assert made.meta["n_fit"] == 12
    assert made.matrix("dm.accuracy").equals(plain.matrix("dm.accuracy"))


@pytest.mark.parametrize("data", [[((IMAGES,),)], [(IMAGES, TARGETS)]], ids=["alone", "with boxes"])
def test_a_list_of_images_without_labels(data: Any) -> None:
    made = _compare(OfImages, data, methods=[])
    assert _get_cka(made) == pytest.approx(_get_cka(_compare_plain(True)), abs=1e-6)


def test_the_last_batches_of_lists_are_read_like_the_first() -> None:
    ends = [((IMAGES[:9],),), ((IMAGES[9:10],),), ((IMAGES[10:11],),), ((IMAGES[11:],),)]
    assert [b.size for b in Batches(ends)] == [9, 1, 1, 1]
    several = [((torch.rand(5, 4), torch.rand(5, 4)),), ((torch.rand(2, 4), torch.rand(2, 4)),)]
    assert [b.size for b in Batches(several)] == [5, 2]
    square = [(([torch.rand(n, 4), torch.rand(n, 4)],), torch.zeros(n)) for n in (5, 2)]
    assert [b.size for b in Batches(square)] == [5, 2]


def test_a_stitched_network_is_trained_on_lists_of_images() -> None:
    recipe = suture.TaskRecipe(epochs=2, batch_size=4, lr=0.1)
    listed, plain = (suture.compare(seeded(of), data=data, **OPTIONS | {"methods": ["tlm"], "tlm": recipe})
                     for of, data in ((OfImages, [(IMAGES, Y)]), (Net, [(PIXELS, Y)])))
    a, b = (c.matrix("tlm.accuracy") for c in (listed, plain))
    assert a.equals(b)


def test_lists_are_cut_by_example_and_repeated() -> None:
    batch = next(iter(Batches([(IMAGES, Y)])))
    assert [(b.size, b.labels.tolist()) for b in cut_batch(batch, 5)] == [
        (5, [0, 1, 2, 0, 1]), (5, [2, 0, 1, 2, 0]), (2, [1, 2])]
    some = ExampleList("abc")
    assert some[[2, 0]] == ["c", "a"]
    assert count_examples((some.repeat(2),)) == 6
    assert type(some[1:]) is ExampleList


@pytest.mark.parametrize(("network", "given"), [
    (OfMapping, ({"a": {"x": X - 1}, "b": [torch.ones(12, 8)]},)), (OfAttribute, Given(X)),
    (OfAttribute, (Given(X),)), (OfAttribute, (Pair(X, 3),)),
    (Net, UserDict(x=X)), (Net, X.numpy()), (Net, X.numpy().astype(float)),
    (Net, {"x": X.flip(1).numpy()[:, ::-1]}),
    (Net, X.to_sparse()), (Net, X.to_sparse_csr()),
], ids=["nested", "data class", "in a tuple", "named tuple", "mapping", "array", "float64 array", "strides",
        "sparse", "compressed"])
def test_inputs_of_any_form_give_what_plain_tensors_give(network: type[Net], given: Any) -> None:
    made = _compare(network, [(given, Y.numpy())], methods=[])
    assert _get_cka(made) == pytest.approx(_get_cka(_compare_plain(False)), abs=1e-6)


@pytest.mark.parametrize("data", [(X.numpy(), Y.numpy()), {"x": X, "label": Y}, X, X.numpy(),
                                  [{"x": x.tolist(), "label": int(y)} for x, y in zip(X, Y, strict=True)]],
                         ids=["arrays", "mapping", "tensor alone", "array alone", "examples by name"])
def test_whole_data_in_memory_are_cut_into_batches(data: Any) -> None:
    found = list(Batches(data, size=5))
    assert [b.size for b in found] == [5, 5, 2]
    joined = torch.cat([b.source["x"] if isinstance(b.source, dict) else b.source for b in found])
    assert torch.allclose(joined, X)
    if not isinstance(data, Tensor | np.ndarray):
        assert torch.equal(torch.cat([b.labels for b in found]), Y)


NESTED = torch.nested.nested_tensor([X[:3], X[:5]])
BAD = {
    "nested tensors": (Net, [(NESTED, Y[:2])], "got a nested tensor; write torch.nested.to_padded_tensor"),
    "jagged tensors": (Net, [(torch.nested.nested_tensor([X[:3], X[:5]], layout=torch.jagged), Y[:2])],
                       "to_padded_tensor"),
    "objects": (Net, [(np.array([None, 1]), Y[:2])], "arrays of numbers, got one of object"),
    "an object": (OfAttribute, [(SimpleNamespace(x=X), Y)], "got SimpleNamespace; yield tensors, or tuples"),
    "a graph object": (OfAttribute, [(SimpleNamespace(x=X, edge_index=EDGES), Y)], "graphs give dense ones"),
    "a graph object alone": (OfAttribute, [SimpleNamespace(x=X, edge_index=EDGES)], "graphs give dense ones"),
    "images of Pillow": (OfImages, [([Image.new("RGB", (8, 8))] * 3, Y[:3])], "need a preprocessing"),
    "texts": (Net, [(["a", "b"], Y[:2])], "need a tokenizer"),
    "nodes with edges": (Graph, [((X, EDGES), Y)], "batch of 12.*give dense ones: x (N, nodes, D)"),
    "nodes with adjacency": (Graph, [((X, torch.eye(12)), Y)], "graphs give dense ones"),
    "sparse adjacency": (Graph, [((X, torch.eye(12).to_sparse()), Y)], "graphs give dense ones"),
    "labels of graphs": (Graph, [((X, EDGES), Y[:2])], "2 labels for 12 inputs.*graphs give dense ones"),
    "a bare list": (OfImages, [(IMAGES,)], "list of 12 tensors is 12 arguments; for one argument yield"),
    "lists of numbers": (Net, [(X.tolist(), Y.tolist())], "a tensor among the inputs, got float"),
    "a text": (Net, "digits", "got str; write data=suture.sources.open_source"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_batch_is_told_in_one_line(case: str) -> None:
    network, data, words = BAD[case]
    with pytest.raises(SutureError) as error:
        _compare(network, data)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in words.split(".*"))


@pytest.mark.parametrize("run", [suture.find_sites, suture.capture])
def test_a_graph_is_told_where_no_data_are_opened(run: Any) -> None:
    with pytest.raises(SutureError, match=r"runs on a whole batch of 12, but not on some .* dense ones"):
        run(seeded(Graph), (X, EDGES))


def test_sites_of_lists_of_images() -> None:
    found = suture.capture(seeded(OfImages), (ExampleList(IMAGES),), ["blocks.0"])["blocks.0"]
    assert torch.allclose(found, suture.capture(seeded(Net), PIXELS, ["blocks.0"])["blocks.0"])
