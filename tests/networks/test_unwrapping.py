"""Wrappers around networks and their parts: taken off, or refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache, partial, update_wrapper
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import suture
from suture import SutureError
from suture._base import fingerprint_network, hash_network
from suture.networks import Site, open_network

NAMES = ["blocks.0", "blocks.1", "blocks.2"]
X, Y = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
DM: dict[str, Any] = {"methods": ["dm"], "ood": None, "indices": ["cka"]}
eager = partial(torch.compile, backend="eager")


class Net(nn.Module):
    """Three blocks, at which everything is read."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def body(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


class OfClass(Net):
    """A forward that is compiled for the class."""

    @eager
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@eager
def call(block: nn.Module, x: Tensor) -> Tensor:
    """Call a module in compiled code."""
    out: Tensor = block(x)
    return out


class Inside(Net):
    """A compiled function of the file runs the blocks, and a part is never compiled."""

    def body(self, x: Tensor) -> Tensor:
        x = self.start(x)
        for block in self.blocks:
            x = call(block, x)
        return x

    @torch.compiler.disable
    def start(self, x: Tensor) -> Tensor:
        out: Tensor = self.stem(x)
        return out


def change(net: Net, what: str) -> nn.Module:
    """Set a compiled part of the network in its place."""
    if what == "block":
        net.blocks[1] = eager(net.blocks[1])
    elif what == "layer in a block":
        net.blocks[1][0] = eager(net.blocks[1][0])  # type: ignore[index]
    elif what == "in place":
        net.compile(backend="eager")  # type: ignore[no-untyped-call]
    else:
        setattr(net, what, eager(getattr(net, what)))
    return net


def double() -> nn.Module:
    """Compile a network with a compiled part, in a parallel one."""
    return nn.DataParallel(eager(change(Net(), "block")))


COMPILED: dict[str, Callable[[], Any]] = {
    "whole": lambda: eager(Net()), "fullgraph": lambda: eager(Net(), fullgraph=True),
    "block": lambda: change(Net(), "block"), "layer": lambda: change(Net(), "layer in a block"),
    "in place": lambda: change(Net(), "in place"), "forward": lambda: change(Net(), "forward"),
    "method": lambda: change(Net(), "body"), "class": OfClass, "inside": Inside,
    "disabled": lambda: eager(Inside()), "twice": double}
OTHERS = {"parallel": lambda: nn.DataParallel(Net()), "averaged": lambda: AveragedModel(Net())}


@pytest.mark.parametrize("name", [*COMPILED, *OTHERS])
def test_a_wrapped_network_is_captured_and_compared_as_the_plain_one(name: str) -> None:
    net = {**COMPILED, **OTHERS}[name]()
    kinds, wanted = [type(m) for m in net.modules()], capture_plain()
    for sites in (None, ["_orig_mod.blocks.[01]", Site("module.blocks.1"), "blocks._orig_mod.2"]):
        found = suture.capture(net, X, sites)
        assert list(found) == NAMES
        assert all(torch.equal(found[k], wanted[k]) for k in NAMES)
    if name in ("whole", "block", "inside", "parallel"):
        result = suture.compare(net, data=(X, Y), **DM)
        assert result.matrix("cka").equals(suture.compare(Net(), data=(X, Y), **DM).matrix("cka"))
    assert [type(m) for m in net.modules()] == kinds


@cache
def capture_plain() -> dict[str, Tensor]:
    """Capture the network without a wrapper."""
    return suture.capture(Net(), X)


def test_compilation_is_no_part_of_the_key() -> None:
    def tell(net: nn.Module) -> tuple[Any, ...]:
        found = open_network(net, "network")
        return hash_network(found), fingerprint_network(found), type(found)

    for make in (COMPILED["whole"], COMPILED["block"], COMPILED["in place"]):
        net = make()
        net(X)
        assert tell(net) == tell(Net())


def test_a_compiled_network_and_its_module_are_one() -> None:
    net = Net()
    assert suture.compare(eager(net), net, (X, Y), **DM).matrix("cka").equals(
        suture.compare(net, data=(X, Y), **DM).matrix("cka"))


def test_a_stitched_network_loads_around_the_plain_one(tmp_path: Any) -> None:
    made = suture.stitch(eager(Net()), "_orig_mod.blocks.0", change(Net(), "block"), "blocks.1", (X, Y))
    made.save(tmp_path / "s.safetensors")
    assert torch.equal(suture.load_stitched(tmp_path / "s.safetensors", Net(), Net(), X)(X), made(X))


def test_a_hook_of_a_wrapper_keeps_its_effect() -> None:
    net = nn.DataParallel(Net())
    net.register_forward_hook(lambda module, args, out: -out)
    site = "module.blocks.1"
    assert torch.equal(suture.run_tail(net, X, site, suture.capture(net, X, site)[site]), -Net()(X))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_torchscript_part_is_one_module(how: str) -> None:
    net = Net()
    net.blocks[1] = torch.jit.script(net.blocks[1]) if how == "script" else torch.jit.trace(
        net.blocks[1], torch.rand(5, 8))
    found, wanted = (suture.capture(n, X, ["blocks.0", "blocks.1", "blocks.2"]) for n in (net, Net()))
    assert all(torch.allclose(found[k], wanted[k], atol=1e-6) for k in NAMES)
    found, wanted = (suture.compare(n, data=(X, Y), sites=NAMES, **DM).matrix("dm.accuracy")
                     for n in (net, Net()))
    assert found.equals(wanted)
    with pytest.raises(SutureError, match="never called"):
        suture.capture(net, X, "blocks.1.0")


def test_code_of_torchscript_counts_and_its_addresses_do_not() -> None:
    def make(act: nn.Module) -> nn.Module:
        net = Net()
        net.blocks[1] = torch.jit.script(nn.Sequential(nn.Linear(8, 8), act))
        return net

    one, again, other = (hash_network(make(act)).state for act in (nn.ReLU(), nn.ReLU(), nn.Tanh()))
    assert one == again != other


def export(unflat: bool = False) -> Any:
    made = torch.export.export(Net(), (X[:4],))
    return torch.export.unflatten(made) if unflat else made.module()


def hold(part: nn.Module) -> nn.Module:
    """Return a network with another part."""
    net = Net()
    net.blocks[1] = part
    return net


class FullyShardedDataParallel(nn.Module):
    """Known by its name, as a real one needs several processes."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "traced": (lambda: torch.jit.trace(Net(), X), "TorchScript.*pass the model it was made from"),
    "exported": (export, "exported graph.*pass the module that was exported"),
    "program": (lambda: torch.export.export(Net(), (X[:4],)), "ExportedProgram; give the module that was"),
    "exported part": (lambda: hold(export()), "part 'blocks.1'.*exported"),
    "unflattened": (lambda: export(True), "exported graph"),
    "meta": (lambda: Net().to("meta"), "'stem.weight' on the meta device.*state dict"),
    "shards": (lambda: hold(FullyShardedDataParallel()), "part 'blocks.1'.*shards.*full state dict")}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_seen_is_refused_in_one_line(name: str) -> None:
    make, words = REFUSED[name]
    net = make()
    for run in (lambda: suture.find_sites(net, X), lambda: suture.capture(net, X),
                lambda: suture.compare(net, None, (X, Y), **DM), lambda: suture.dry_run(Net(), net, (X, Y)),
                lambda: suture.stitch(Net(), "blocks.0", net, "blocks.1", (X, Y))):
        with pytest.raises(SutureError, match=words) as raised:
            run()
        assert "\n" not in str(raised.value)


def test_a_graph_of_fx_runs_with_the_modules_it_calls() -> None:
    net = torch.fx.symbolic_trace(Net())
    found, wanted = (suture.capture(n, X, ["blocks.0.1", "blocks.2.1"]) for n in (net, Net()))
    assert all(torch.equal(found[k], wanted[k]) for k in wanted)


class AlignDevicesHook:
    """The part of Accelerate's hook (accelerate/hooks.py, 1.15) that fetches weights for a forward pass."""

    def __init__(self, weights_map: Mapping[str, Tensor]) -> None:
        self.weights_map, self.offload = weights_map, True


def offload(net: Net) -> Net:
    """Take the weights of every layer away, as `accelerate.cpu_offload` does."""
    for module in [m for m in net.modules() if isinstance(m, nn.Linear)]:
        stored = {k: p.detach().clone() for k, p in module.named_parameters()}
        module._hf_hook, module._old_forward = AlignDevicesHook(stored), module.forward  # type: ignore

        def forward(module: Any, x: Tensor) -> Tensor:
            for k, p in module._hf_hook.weights_map.items():
                setattr(module, k, nn.Parameter(p))
            out: Tensor = module._old_forward(x)
            for k in module._hf_hook.weights_map:
                setattr(module, k, nn.Parameter(getattr(module, k).to("meta")))
            return out

        module.forward = update_wrapper(partial(forward, module), module._old_forward)  # type: ignore
        for k in stored:
            setattr(module, k, nn.Parameter(getattr(module, k).to("meta")))
    return net


def test_offloaded_weights_are_read_into_the_copy() -> None:
    net, plain = offload(Net()), Net()
    found, wanted = suture.capture(net, X), suture.capture(plain, X)
    assert all(torch.equal(found[k], wanted[k]) for k in NAMES)
    result = suture.compare(net, Net(), (X, Y), **DM)
    assert result.matrix("cka").equals(suture.compare(plain, Net(), (X, Y), **DM).matrix("cka"))
    assert all(p.is_meta for p in net.parameters())
    stitched = suture.stitch(net, "blocks.0", net, "blocks.1", (X, Y))
    assert torch.equal(stitched(X), suture.stitch(plain, "blocks.0", plain, "blocks.1", (X, Y))(X))
    assert hash_network(open_network(net, "network")) == hash_network(plain)
    del net.head._hf_hook.weights_map
    with pytest.raises(SutureError, match=r"'head.weight' on the meta device"):
        suture.compare(net, None, (X, Y), **DM)


def test_weights_that_a_hook_holds_twice_stay_tied() -> None:
    net = Net()
    net.blocks[1][0].weight = net.blocks[0][0].weight  # type: ignore[index, union-attr]
    tied = copy.deepcopy(net)
    shared = offload(net).blocks[0][0]._hf_hook.weights_map  # type: ignore[index]
    net.blocks[1][0]._hf_hook.weights_map["weight"] = shared["weight"]  # type: ignore[index]
    found: Any = open_network(net, "network")
    assert found.blocks[1][0].weight is found.blocks[0][0].weight
    assert torch.equal(found(X), tied(X))
