"""Fingerprints and keys: which changes of a network and of parts they see."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch
from torch import nn

from suture import SutureError, zoo
from suture._base import fingerprint_network, hash_object, hash_parts, hash_tensors


def test_a_fingerprint_names_every_weight() -> None:
    network = zoo.build("resnet_digits")
    first = fingerprint_network(network)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint_network(network.eval()) == first
    for tensor in (network.fc.bias, network.bn1.running_var):
        kept = tensor.detach().clone()
        tensor.data[-1] += 1e-6 * (1 + abs(float(tensor.data[-1])))
        assert fingerprint_network(network) != first
        tensor.data.copy_(kept)
    assert fingerprint_network(network) == first


def test_a_fingerprint_covers_names_types_and_shapes_but_not_layout_or_order() -> None:
    def one(name: str, value: torch.Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, value)
        return module

    base = fingerprint_network(one("a", torch.zeros(2, 3)))
    assert fingerprint_network(one("b", torch.zeros(2, 3))) != base
    assert fingerprint_network(one("a", torch.zeros(3, 2))) != base
    assert fingerprint_network(one("a", torch.zeros(2, 3, dtype=torch.int32))) != base
    assert fingerprint_network(one("a", torch.zeros(2, 3, dtype=torch.bfloat16))) != base
    square = torch.arange(9.0).reshape(3, 3)
    assert fingerprint_network(one("a", square.T)) == fingerprint_network(one("a", square.T.contiguous()))
    ab, ba = nn.Module(), nn.Module()
    for name in "ab":
        ab.register_buffer(name, torch.zeros(1))
    for name in "ba":
        ba.register_buffer(name, torch.zeros(1))
    assert fingerprint_network(ab) == fingerprint_network(ba)


def test_one_number_hashes_the_same_whatever_its_stride() -> None:
    expanded = torch.from_numpy(np.broadcast_to(2.0, (1,)).copy()).as_strided((1,), (0,))
    assert expanded.stride() == (0,)
    plain = torch.full((1,), 2.0, dtype=torch.float64)
    assert hash_tensors([("a", expanded)]) == hash_tensors([("a", plain)])
# -- keys ----------------------------------------------------------------------------------------------------

PARTS = {"network": "abc", "site": "layer1.0", "shape": "map 16x8x8", "recipe": {"lr": 1e-3, "epochs": 3},
         "data": "d1", "auxiliary": "a1", "classes": 10}


def test_a_key_depends_on_what_the_parts_say_and_not_on_their_order() -> None:
    key = hash_parts(PARTS)
    assert re.fullmatch("[0-9a-f]{16}", key)
    turned = dict(reversed(PARTS.items())) | {"recipe": {"epochs": 3, "lr": 1e-3}}
    assert hash_parts(turned) == key
    assert hash_parts({"sites": ("a", "b")}) == hash_parts({"sites": ["a", "b"]})


def test_a_key_is_the_same_in_years() -> None:
    text = r'{"a":"\u00e9","b":[1,2.5,null,true]}'
    assert hash_parts({"b": [1, 2.5, None, True], "a": "é"}) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert hash_parts({"b": [1, 2.5, None, True], "a": "é"}) == "0b8cc543e984d4d7"


@pytest.mark.parametrize("part", [*PARTS, "new", "recipe.lr"])
def test_a_key_changes_with_each_part(part: str) -> None:
    changed = PARTS | ({"recipe": {"lr": 2e-3, "epochs": 3}} if part == "recipe.lr" else {part: "other"})
    assert hash_parts(changed) != hash_parts(PARTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, torch.ones(2), {(1, 2): 3}])
def test_a_part_that_json_does_not_know_is_refused(value: object) -> None:
    with pytest.raises(SutureError, match="expected the parts of a key as words"):
        hash_parts({"part": value})


def test_a_hash_is_the_same_the_second_time() -> None:
    class Own:
        """Python notes more on a class when one of its objects is first taken apart."""

        def __init__(self) -> None:
            self.width = 3

    assert hash_object(Own()) == hash_object(Own())
