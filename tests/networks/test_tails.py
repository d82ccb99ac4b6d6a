"""Law 1 and default sites on architectures of transformers, random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import suture
import suture.networks.calls
from suture import SutureError
from suture.networks.calls import apply, extract_tensors, record, walk
from suture.networks.sites import Site, SitedNetwork
from tests.support.architectures import ARCHITECTURES, N

EVERY = ("vit", "swin", "bert", "albert", "gpt2")
"""Where every legal site is tried, and not the default ones alone."""
LONG = ("swin", "albert", "vit", "bert")
"""Those that take long: their blocks are tried above, and every site of another one below."""


def _state(network: nn.Module) -> list[Any]:
    """All that a hook could leave behind."""
    return [(name, m.training, sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks))
            for name, m in network.named_modules()] + [(n, p.requires_grad, p._version)
                                                       for n, p in network.named_parameters()]


def _equal(mine: Any, wanted: Any) -> None:
    a, b = extract_tensors(mine), extract_tensors(wanted)
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def _legal(network: nn.Module, inputs: Any, but_in: tuple[str, ...]) -> list[Site]:
    """Find the legal sites that lie outside of some modules, or are these."""
    found = []
    with torch.no_grad():
        calls = sorted(walk(record(network, inputs)), key=lambda c: c.finished)
    for call in calls:
        if str(Site(*call.id)).startswith(tuple(f"{path}." for path in but_in)):
            continue
        try:
            SitedNetwork(network, inputs, [Site(*call.id)])
        except SutureError:
            continue
        found.append(Site(*call.id))
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_law_1_at_the_blocks_which_are_found_in_order(name: str) -> None:
    of = ARCHITECTURES[name]
    network, inputs = of.build(), of.inputs()
    before, wanted = _state(network), apply(network, inputs)
    sited = SitedNetwork(network, inputs)
    assert tuple(map(str, sited.sites)) == of.sites
    assert tuple(map(str, sited.shapes)) == of.shapes
    front, done = sited.front(inputs), sited.run_full(inputs)
    _equal(done.output, wanted)
    for k, x in enumerate(front):
        assert sited.shapes[k].fits(x)
        torch.testing.assert_close(x, sited.pick_representations(done)[k])
        _equal(sited.tail(k, x, done), wanted)
        _concatenated(sited, k, x, done)
    assert _state(network) == before
    _equal(apply(network, inputs), wanted)


def _concatenated(sited: SitedNetwork, k: int, x: Tensor, done: Any) -> None:
    """Two batches through one tail are two tails."""
    other = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(k))
    together = suture.networks.calls.extract_main_output(sited.tail(k, torch.cat([x, other]), done))
    assert together is not None
    for part, alone in zip(together.split(N), (x, other), strict=True):
        end = suture.networks.calls.extract_main_output(sited.tail(k, alone, done))
        assert end is not None
        torch.testing.assert_close(part, end, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[:N], together[N:])


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in EVERY])
@torch.no_grad()
def test_law_1_at_every_legal_site(name: str) -> None:
    of = ARCHITECTURES[name]
    network, inputs = of.build(), of.inputs()
    # Its blocks after the first have the same sites.
    wanted, sites = apply(network, inputs), _legal(network, inputs, of.sites[1:])
    assert {Site.parse(s) for s in of.sites} <= set(sites)
    assert len(sites) > len(of.sites)
    sited = SitedNetwork(network, inputs, sites)
    done = sited.run_full(inputs)
    for k, x in enumerate(sited.front(inputs)):
        _equal(sited.tail(k, x, done), wanted)


@torch.no_grad()
def test_padding_changes_no_representation_of_what_counts() -> None:
    of = ARCHITECTURES["bert"]
    network, short = of.build(), of.inputs()
    long = {k: torch.nn.functional.pad(v, (0, 4)) for k, v in short.items()}
    sited = SitedNetwork(network, short)
    kept = short["attention_mask"].bool()
    for a, b in zip(sited.front(short), sited.front(long), strict=True):
        torch.testing.assert_close(a[kept], b[:, :9][kept], rtol=1e-4, atol=1e-5)
