"""How the stored weights came about: short trainings, rounded to half precision so that they stay small."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from suture import zoo
from tests.golden.networks import MAKERS, WEIGHTS, classes, masked_labels, texts

SEEDS = {"digits0": 0, "digits1": 1, "small0": 0, "small1": 1}


def write_weights(names: list[str]) -> None:
    """Train networks and write their weights; without names, all of them."""
    torch.set_num_threads(1)
    for name in names or MAKERS:
        zoo.save_weights(copy.deepcopy(_trained(name)).half(), WEIGHTS / f"{name}.safetensors")


def _trained(name: str) -> nn.Module:
    if name.startswith("digits"):
        return zoo.train_network("resnet_digits", SEEDS[name])[0]
    torch.manual_seed(SEEDS.get(name, 2))
    network = MAKERS[name]()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2 if name[:2] in ("sm", "sk") else 3e-3)
    for step in range(300):
        optimizer.zero_grad()
        _loss(name, network, step).backward()
        optimizer.step()
    return network


def _loss(name: str, network: nn.Module, step: int) -> torch.Tensor:
    if name in ("bert", "masked", "gpt"):
        some = texts(32, 100 + step)
        ids, counts = some["input_ids"], some["attention_mask"].bool()
        logits = network(**some).logits
        if name == "bert":
            return F.cross_entropy(logits, classes(some))
        if name == "masked":
            return F.cross_entropy(logits.flatten(0, 1), masked_labels(some).flatten(), ignore_index=-100)
        wanted = torch.where(counts, ids, -100)[:, 1:]
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten(), ignore_index=-100)
    x, y = zoo.digits("train").tensors
    rows = torch.randint(len(x), (64,))
    logits = network(x[rows])
    return F.cross_entropy(logits if isinstance(logits, torch.Tensor) else logits.logits, y[rows])
