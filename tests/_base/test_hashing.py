"""Fingerprints: which changes of a network they see."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from suture import zoo
from suture._base.hashing import fingerprint_network, hash_tensors


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
