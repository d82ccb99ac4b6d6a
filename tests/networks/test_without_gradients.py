"""Networks without gradients: sites, captures, direct matching, and the one thing that needs gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional as F

import suture
from suture import SutureError, TaskRecipe
from suture._base import fingerprint_network
from tests.networks.test_unwrapping import DM, NAMES, Net, X, Y


class Integers(nn.Module):
    """A linear layer with weights of int8, whose forward has no gradient."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        scale = of.weight.detach().abs().max() / 127
        self.weight = nn.Parameter((of.weight.detach() / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = of.bias

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class Half(Integers):
    """The same with weights of float8."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__(of)
        self.weight = nn.Parameter(of.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
        self.scale = torch.ones(())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), self.bias)


def replace_layers(kind: type[Integers]) -> nn.Module:
    """Return the network with another kind of linear layers."""
    net = Net()
    for block in net.blocks:
        block[0] = kind(block[0])  # type: ignore[index, operator]
    net.head = kind(net.head)  # type: ignore[assignment]
    return net


def quantise(seed: int = 1) -> nn.Module:
    """Quantise the weights, and the inputs of each layer with a scale of the whole batch."""
    net = Net()
    torch.manual_seed(seed)
    nn.init.normal_(net.head.weight)
    made: nn.Module = quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    return made


def calibrate() -> nn.Module:
    """Quantise weights and representations with fixed scales; every module then returns integers."""
    class Stubs(Net):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = quantization.QuantStub(), quantization.DeQuantStub()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(super().forward(self.first(x)))
            return out

    net = Stubs().eval()
    net.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[assignment]
    quantization.prepare(net, inplace=True)
    net(X)
    made: nn.Module = quantization.convert(net)
    return made


class NoGrad(Net):
    """The whole forward."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Inference(Net):
    """Representations are overwritten where nothing counts changes."""

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
            x += 1
        out: Tensor = self.head(x)
        return out


class Numpy(Net):
    """The tail runs in NumPy, which refuses tensors with gradients."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.from_numpy(np.tanh(self.body(x).numpy())))
        return out


KINDS: dict[str, Callable[[], nn.Module]] = {
    "int8": lambda: replace_layers(Integers), "float8": lambda: replace_layers(Half), "dynamic": quantise,
    "calibrated": calibrate, "no_grad": NoGrad, "inference_mode": Inference, "numpy": Numpy}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_only_training_through_the_tail_needs_gradients(name: str) -> None:
    net = KINDS[name]().eval()
    seen: dict[str, Tensor] = {}
    hooks = [net.get_submodule(k).register_forward_hook(
        lambda m, args, out, k=k: seen.update({k: (out.dequantize() if out.is_quantized else out).clone()}))
        for k in NAMES]
    with torch.no_grad():
        wanted = net(X).argmax(1)
    for hook in hooks:
        hook.remove()
    found = suture.capture(net, X)
    assert list(found) == NAMES
    assert all(torch.equal(found[k], seen[k]) for k in NAMES)

    plain = Net()
    own = suture.compare(net, net, (X, wanted), task="classification", methods=["dm"], ood=None, indices=[])
    assert (np.diag(own.matrix("dm.accuracy")) > 0.9).all()  # 8 bits round the own layer's map
    calls = [lambda: suture.compare(plain, net, (X, Y)), lambda: suture.dry_run(plain, net, (X, Y)),
             lambda: suture.stitch(plain, "blocks.0", net, "blocks.1", (X, Y), method="tlm")]
    for run in calls if name in ("int8", "no_grad") else calls[:1]:
        with pytest.raises(SutureError, match=r"gradient of the target.*'blocks.\d'.*methods=\['dm'\]"):
            run()
    pairs = [(net, plain, "hard")] + [(plain, net, "match")] * (name == "no_grad")
    for source, target, objective in pairs:
        tlm = TaskRecipe(epochs=1, objective=objective)  # type: ignore[arg-type]
        found = suture.compare(source, target, (X, Y), sites=["blocks.1"], methods=["tlm"], ood=None,
                               indices=[], tlm=tlm)
        assert found.matrix("tlm.accuracy").notna().all().all()


class Stop(torch.autograd.Function):
    """A function that keeps the numbers and hands on no gradient."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> None:
        return None


AROUND: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": Tensor.detach, "data": lambda t: t.data, "sign": lambda t: (t > 0.1).float(),
    "index": lambda t: F.one_hot(t.argmax(1), t.shape[1]).float(), "whole": lambda t: (9 * t).long().float(),
    "list": lambda t: torch.tensor(t.tolist()), "own function": Stop.apply,
    "one by one": lambda t: torch.stack([torch.stack([torch.full((), v.item()) for v in row]) for row in t])}


class Skip(nn.Module):
    """A path around two blocks; gradients follow it or not."""

    def __init__(self, how: str) -> None:
        super().__init__()
        net = Net()
        self.stem, self.blocks, self.head, self.how = net.stem, net.blocks, net.head, how

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad() if self.how == "no_grad" else nullcontext():
            first = self.stem(x)
            inner = self.blocks[1](self.blocks[0](first))
            around = AROUND.get(self.how, lambda t: t)(first)
            out: Tensor = self.head(self.blocks[2](inner + around))
        return out


@pytest.mark.parametrize("how", ["no_grad", *AROUND])
def test_a_path_without_gradients_is_a_bypass(how: str) -> None:
    names = ["stem", "blocks.0", "blocks.0.0", "blocks.1", "blocks.2", "blocks.2.0"]
    found, wanted = (suture.find_sites(Skip(h), X, names) for h in (how, "plain"))
    assert [(str(i.site), i.bypass) for i in found] == [(str(i.site), i.bypass) for i in wanted]
    assert [i.bypass for i in found if str(i.site) == "blocks.0"] == [("stem",)]
    with pytest.raises(SutureError, match="stem goes around it"):
        suture.compare(Skip(how), None, (X, Y), sites="blocks.1", **DM)


def test_a_site_that_the_output_does_not_follow_is_refused() -> None:
    class Zero(NoGrad):
        def body(self, x: Tensor) -> Tensor:
            return super().body(x) * 0

    with pytest.raises(SutureError, match=r"does not depend on site 'blocks.0'"):
        suture.capture(Zero(), X, "blocks.0")


class Codes(Skip):
    """A module gives a whole number for each example, which is read after two blocks."""

    def __init__(self, embedded: bool) -> None:
        super().__init__("")
        self.code, self.embedded = Code(), embedded
        self.words = nn.Embedding(99, 99)

    def forward(self, x: Tensor) -> Tensor:
        first = self.stem(x)
        inner, code = self.blocks[0](first), self.code(x)
        inner = self.blocks[1](inner)
        words = self.words(code) if self.embedded else self.words.weight[code]
        out: Tensor = self.head(self.blocks[2](inner + words[:, :inner.shape[1]]))
        return out


class Code(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


@pytest.mark.parametrize("embedded", [False, True])
def test_whole_numbers_of_examples_go_around_sites_too(embedded: bool) -> None:
    found = suture.find_sites(Codes(embedded), X, ["blocks.0", "blocks.1", "blocks.2"])
    assert [i.bypass for i in found] == [(), ("code",), ()]


class Classes(Net):
    """It returns no numbers with a fraction."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


def test_without_an_output_of_numbers_indices_are_computed() -> None:
    found, wanted = (suture.compare(n, data=(X, Y), methods=[], indices=["cka"]) for n in (Classes(), Net()))
    assert found.matrix("cka").equals(wanted.matrix("cka"))
    with pytest.raises(SutureError, match="floating point tensor among the outputs"):
        suture.compare(Classes(), data=(X, Y), **DM)


@pytest.mark.filterwarnings("ignore")
def test_a_scale_of_the_batch_does_not_mix_cells() -> None:
    net = quantise()
    how = {**DM, "target_sites": ["blocks.1"], "indices": ["cka"]}
    alone, all_of_them = (suture.compare(Net(), net, (X, Y), sites=sites, **how)
                          for sites in (["blocks.2"], ["blocks.0", "blocks.1", "blocks.2"]))
    for name in ("dm.accuracy", "dm.kl"):
        assert alone.matrix(name).loc["blocks.2"].equals(all_of_them.matrix(name).loc["blocks.2"])
    assert any("rounds to 8 bits" in note for note in alone.meta["notes"])
    assert fingerprint_network(net) == fingerprint_network(quantise()) != fingerprint_network(quantise(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_two_networks_may_differ(dtype: torch.dtype) -> None:
    net, data = Net().to(dtype), X.to(dtype)
    for pair, streams in (((net, Net()), (data, X)), ((Net(), net), (X, data))):
        paired = suture.Paired(*((x, Y) for x in streams))
        result = suture.compare(*pair, paired, task="classification", methods=["dm", "tlm"], ood=None,
                                indices=[], tlm=TaskRecipe(epochs=1))
        assert result.matrix("dm.accuracy").notna().all().all()
