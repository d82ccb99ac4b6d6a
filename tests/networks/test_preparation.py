"""Networks made ready: private, frozen, in a layout that changes nothing; and data of every nesting through
compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import Paired, SutureError
from suture.compare import preparation
from suture.networks.preparation import (
    CPU_BUDGET,
    check_precision,
    choose_micro_batch,
    find_device,
    fold_batch_norms,
    pack_convolutions,
    prepare,
    take_first,
)
from suture.networks.sites import SitedNetwork
from tests.support.tiny import RECIPE, Tiny, data, images, labels, network, other, seeded

CPU = torch.device("cpu")


class Views(Tiny):
    """Calls `.view` on a map, which a map in channels-last layout refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.block2(self.block1(x))
        return self.head(h.view(h.size(0), -1))


class Strided(Tiny):
    """Reads memory as it lies: channels last gives another output, without an error."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.block2(self.block1(x))
        flat = torch.as_strided(h, (len(h), 64), (64, 1))
        return flat[:, :3] * torch.tensor([1.0, 2.0, 3.0])


class TwoInputs(Tiny):
    """Two inputs, by position or by name, and a third that has no examples."""

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor | None = None) -> Tensor:
        h = self.block2(self.block1(x) + shift[:, None, None, None])
        return self.head(h.mean((2, 3))) * (1 if scale is None else scale)


def _layout(made: nn.Module) -> str:
    weight = made.block2.conv.weight
    return "last" if weight.is_contiguous(memory_format=torch.channels_last) else "usual"


@pytest.mark.parametrize(("make", "layout"), [(Tiny, "last"), (Views, "usual"), (Strided, "usual")])
def test_channels_last_where_it_changes_nothing(make: type[nn.Module], layout: str) -> None:
    given = seeded(make)
    made = prepare(given, images(4), CPU, "source")
    assert _layout(made) == layout
    with torch.no_grad():
        torch.testing.assert_close(made(images(9)), given.eval()(images(9)))


def test_the_copy_is_private_and_frozen() -> None:
    given = network().train()
    made = prepare(given, images(4), CPU, "source")
    assert not any(m.training for m in made.modules())
    assert not any(p.requires_grad for p in made.parameters())
    assert all(m.training for m in given.modules())
    assert all(p.requires_grad for p in given.parameters())
    with torch.no_grad():
        made.head.weight.zero_()
    assert given.head.weight.abs().sum() > 0


@pytest.mark.parametrize("source", [Tiny, Views])
@pytest.mark.parametrize("target", [Tiny, Views])
def test_a_forward_that_views_a_map_is_compared_like_any_other(source: type[nn.Module],
                                                               target: type[nn.Module]) -> None:
    """Stitched maps come in the layout that the target's own modules give."""
    class Reshapes(Views):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block2(self.block1(x)).flatten(1))

    def run(view: type[nn.Module]) -> suture.Comparison:
        a, b = (seeded(view if make is Views else make, seed) for seed, make in enumerate((source, target)))
        return suture.compare(a, b, *data(), tlm=RECIPE, device="cpu")

    got, wanted = run(Views), run(Reshapes)
    for measure in ("cka", "dm.residual", "tlm.residual", "dm.agreement"):
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["auto", "cpu", torch.device("cpu"), "cpu:0"])
def test_devices_that_are_there(name: Any) -> None:
    wanted = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu"
    if name != "auto" or not torch.backends.mps.is_available():
        assert find_device(name).type == wanted


def test_auto_prefers_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device().type == "cuda"


@pytest.mark.parametrize(("name", "words"), [("gpu", "auto, cpu, cuda or mps, got 'gpu'"), ("", "got ''"),
                                             ("cuda", "'cuda' is not available"),
                                             ("mps", "'mps' is not available"),
                                             ("meta", "'meta' is not available")])
def test_devices_that_are_not_there(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SutureError, match=words):
        find_device(name)


def test_float64_is_refused_and_the_halves_are_not() -> None:
    check_precision(network().to(torch.bfloat16), "source")
    check_precision(network().half(), "source")
    mixed = network()
    mixed.head.double()
    with pytest.raises(SutureError, match=r"the target in float32 .*float64 in 'head.weight'"):
        check_precision(mixed, "target")


def test_few_examples_of_everything_that_has_them() -> None:
    scale = torch.tensor(2.0)
    got = take_first({"x": images(9), "pair": (labels(9), scale), "table": images(5)}, 3)
    assert torch.equal(got["x"], images(9)[:3])
    assert torch.equal(got["pair"][0], labels(3))
    assert got["pair"][1] is scale
    assert got["table"].shape[0] == 5


def test_a_micro_batch_keeps_the_largest_activation_within_the_budget() -> None:
    largest = 4 * max(3 * 8 * 8, 4 * 4 * 4)
    for n in (2, 9):
        sited = SitedNetwork(network(), images(n))
        assert sited.peak == largest
        assert choose_micro_batch(sited.peak, CPU) == CPU_BUDGET // largest
    assert choose_micro_batch(2 * CPU_BUDGET, CPU) == 1


def test_late_tails_take_more_examples_at_once() -> None:
    sited = SitedNetwork(network(), images(4), ["block1", "block2"])
    with torch.no_grad():
        sizes = [sited.front(images(4))[k][0].numel() * 4 for k in range(2)]
    assert list(sited.peaks) == sizes
    assert [sited.count_at_once(k, 10, 5) for k in range(2)] == [10 * sited.peak // (s * 5) for s in sizes]
    assert sited.count_at_once(0, 1, 1000) == 1


def test_micro_batches_and_a_small_last_batch_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> suture.Comparison:
        loader = [(images()[:13], labels()[:13]), (images()[13:23], labels()[13:23]),
                  (images()[23:], labels()[23:])]
        return suture.compare(network(), other(), loader, data()[1], tlm=RECIPE, device="cpu")

    wanted = run()
    monkeypatch.setattr(preparation, "choose_micro_batch", lambda *args: 3)
    got = run()
    assert got.meta["micro_batch"] == 3
    for measure in wanted.measures:
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-4, atol=1e-5,
                                   err_msg=measure)


def _inputs(kind: str, x: Tensor, shift: Tensor) -> Any:
    scale = torch.tensor(2.0)
    return {"tuple": (x, shift, scale), "list": [x, shift, scale],
            "dict": {"shift": shift, "scale": scale, "x": x}}[kind]


@pytest.mark.parametrize("kind", ["tuple", "list", "dict"])
def test_inputs_of_every_nesting_give_what_one_tensor_gives(kind: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "choose_micro_batch", lambda *args: 5)

    def batches(n: int, wrap: str | None) -> list[Any]:
        return [(x if wrap is None else _inputs(wrap, x, torch.zeros(len(x))), y)
                for x, y in zip(images(n).split(8), labels(n).split(8), strict=True)]

    plain = suture.compare(seeded(Tiny), None, batches(19, None), tlm=RECIPE, methods=["dm"], device="cpu")
    nested = suture.compare(seeded(TwoInputs), None, batches(19, kind), tlm=RECIPE,
                            methods=["dm"], device="cpu")
    for measure in plain.measures:
        if not measure.endswith(("kl", "ce_gap")):  # the nested network's logits are scaled
            np.testing.assert_allclose(nested.matrix(measure), plain.matrix(measure), rtol=1e-4,
                                       err_msg=measure)


def test_pairs_feed_each_network_its_own_inputs() -> None:
    wide = seeded(lambda: Tiny(channels=3), 1)
    ours, theirs = images(), images(channels=3, seed=7)
    paired = Paired([(ours[:16], labels()[:16]), (ours[16:], labels()[16:])],
                    [(theirs[:16], labels()[:16]), (theirs[16:], labels()[16:])])
    result = suture.compare(network(), wide, paired, tlm=RECIPE, device="cpu")
    with torch.no_grad():
        x = suture.capture(network(), ours, ["block1"])["block1"].permute(0, 2, 3, 1).reshape(-1, 3)
        y = suture.capture(wide, theirs, ["block1"])["block1"].permute(0, 2, 3, 1).reshape(-1, 3)
    wanted = suture.indices.of_matrices(x, y)["cka"].value
    assert result.matrix("cka").loc["block1", "block1"] == pytest.approx(wanted, rel=1e-4)
    hits = (wide(theirs).argmax(1) == labels()).float().mean()
    assert result.meta["target_accuracy"] == pytest.approx(float(hits))


@pytest.mark.parametrize("first", [1, 2])
def test_a_first_batch_of_one_or_two_examples_does(first: int) -> None:
    loader = [(images()[:first], labels()[:first]), (images()[first:], labels()[first:])]
    got = suture.compare(network(), None, loader, methods=["dm"], device="cpu")
    wanted = suture.compare(network(), None, (images(), labels()), methods=["dm"], device="cpu")
    np.testing.assert_allclose(got.matrix("cka"), wanted.matrix("cka"), rtol=1e-4)
    np.testing.assert_array_equal(got.matrix("dm.agreement"), wanted.matrix("dm.agreement"))


class Normed(nn.Module):
    """Every way in which a convolution meets a batch norm; only `plain` and `boxed` may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.plain_bn = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.boxed = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3, affine=False),
                                   nn.ReLU(inplace=True))
        self.twice, self.twice_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.wrapped, self.wrapped_bn = nn.Sequential(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.batch, self.batch_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.head = nn.Linear(3, 3)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None and m.running_var is not None:
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.boxed(self.plain_bn(self.plain(x)))
        for _ in range(2):
            x = self.twice_bn(self.twice(x))
        x = self.batch_bn(self.batch(self.wrapped_bn(self.wrapped(x))))
        return torch.as_tensor(self.head(x.mean((2, 3))))


def test_batch_norms_are_folded_where_nothing_else_reads_the_convolution() -> None:
    net = seeded(Normed).eval()
    wanted = net(images(5))
    made = prepare(net, images(5), CPU, "source")
    assert fold_batch_norms(made, images(5), unchanged={"wrapped"}) == 2
    assert {n for n, m in made.named_modules() if "forward" in m.__dict__} == {"plain_bn", "boxed.1"}
    torch.testing.assert_close(made(images(5)), wanted, rtol=1e-4, atol=1e-5)
    assert fold_batch_norms(made, images(5), unchanged={"wrapped"}) == 0, "a second time nothing is left"
    assert fold_batch_norms(prepare(net, images(5), CPU, "source"), images(5)) == 3


class ReadTwice(Normed):
    """The convolution's result is read beside the batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        return torch.as_tensor(self.head((self.plain_bn(x) + x).mean((2, 3))))


def test_folding_is_undone_where_it_changes_a_result() -> None:
    net = seeded(ReadTwice).eval()
    made = prepare(net, images(5), CPU, "source")
    assert fold_batch_norms(made, images(5)) == 0
    torch.testing.assert_close(made(images(5)), net(images(5)), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), net.parameters(), strict=True))


def test_a_folded_comparison_equals_an_unfolded_one_also_at_a_convolution(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> suture.Comparison:
        return suture.compare(seeded(Normed), None, (images(), labels()),
                              sites=["plain", "boxed", "twice_bn#1"], methods=["dm"], device="cpu")

    got = run()
    monkeypatch.setattr(preparation, "fold_batch_norms", lambda *args: 0)
    wanted = run()
    for measure in wanted.measures:
        # Ranks of scores that are equal but for rounding, as in the own-layer cells, are up to rounding.
        atol = 0.05 if measure.endswith("_mahalanobis") else 1e-4
        np.testing.assert_allclose(got.matrix(measure), wanted.matrix(measure), rtol=1e-3, atol=atol,
                                   err_msg=measure)


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 300, 3), nn.ReLU(),
                         nn.Conv2d(300, 300, 3, stride=2, padding=1, groups=2),
                         nn.ReLU(), nn.Conv2d(300, 5, 1, padding="same"))


def test_large_convolutions_are_packed_and_give_the_same_also_for_gradients(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.networks.preparation.LEAST_PACKED_BYTES", 2**16)
    net = seeded(wide).eval()
    made = prepare(net, images(5), CPU, "source")
    assert pack_convolutions(made, images(5)) == 1
    assert {n for n, m in made.named_modules() if "forward" in m.__dict__} == {"2"}
    for n in (1, 5, 24):
        x = images(n).requires_grad_()
        wanted = net(x)
        with torch.no_grad():
            torch.testing.assert_close(made(x.detach()), wanted, rtol=1e-4, atol=1e-5)
        out = made(x)
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
        grads = [torch.autograd.grad(o.square().sum(), x)[0] for o in (out, wanted)]
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(made(images()), net(images()), rtol=0.1, atol=0.1)


def test_nothing_is_packed_where_the_operators_are_missing_or_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture.networks.preparation.LEAST_PACKED_BYTES", 1)
    made = prepare(seeded(wide), images(5), CPU, "source")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack_convolutions(made, images(5)) == 0
    monkeypatch.undo()
    monkeypatch.setattr("suture.networks.preparation.LEAST_PACKED_BYTES", 1)

    def broken(*args: object) -> Tensor:
        raise RuntimeError("not in this build")

    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", broken)
    assert pack_convolutions(made, images(5)) == 0
    assert not any("forward" in m.__dict__ for m in made.modules())
