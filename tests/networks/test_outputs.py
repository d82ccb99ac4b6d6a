"""The scored tensor of an output: its place, what its values are, and the operation that made them."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from suture import SutureError
from suture.networks import (
    OutputKind,
    Readout,
    SitedNetwork,
    extract_main_output,
    find_last_operations,
    is_unbounded,
    name_tensors,
    sums_to_one,
)

Z = torch.tensor([[2.0, -1.0, 0.5], [-40.0, 3.0, 30.0]])


@dataclass
class Answer:
    features: Tensor
    heads: list[Tensor]
    steps: int = 3


A, B, C = torch.rand(3, 4, 2).unbind()


@pytest.mark.parametrize(("output", "places", "main"), [
    (A, {"": A}, A),
    ((A, B), {"0": A, "1": B}, A),
    ({"a": A, "logits": B}, {"a": A, "logits": B}, B),
    (Answer(A, [B, C]), {"features": A, "heads.0": B, "heads.1": C}, A),
    (namedtuple("Two", "x logits")(A, (B, C)), {"x": A, "logits.0": B, "logits.1": C}, B),
    ((torch.arange(4), {"k": (A, None)}), {"1.k.0": A}, A),
    ("text", {}, None),
])
def test_tensors_have_a_place(output: object, places: dict[str, Tensor], main: Tensor | None) -> None:
    found = name_tensors(output)
    assert list(found) == list(places)
    assert all(found[p] is t for p, t in places.items())
    assert extract_main_output(output) is main


@pytest.mark.parametrize(("kind", "values"), [
    ("logits", Z), ("values", Z), ("probabilities", Z.softmax(1)), ("log_probabilities", Z.log_softmax(1)),
    ("sigmoid", Z.clamp(max=10).sigmoid())])
def test_what_is_read_has_the_softmax_of_the_logits(kind: str, values: Tensor) -> None:
    got = Readout(kind=OutputKind(kind)).read(values)
    wanted = Z.clamp(max=10) if kind == "sigmoid" else Z
    torch.testing.assert_close(got.log_softmax(1), wanted.log_softmax(1), rtol=1e-3, atol=1e-3)


def test_probabilities_are_limited_to_what_their_type_tells() -> None:
    ends = torch.tensor([[0.0, 1.0]])
    assert Readout(kind=OutputKind.SIGMOID).read(ends).isfinite().all()
    assert Readout(kind=OutputKind.PROBABILITIES).read(ends.bfloat16()).isfinite().all()


@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
def test_one_number_is_the_logit_of_the_second_of_two_classes(kind: str) -> None:
    z = torch.tensor([-2.0, 0.5, 3.0])
    given = z.sigmoid() if kind == "sigmoid" else z[:, None]
    got = Readout(kind=OutputKind(kind), single=True).read(given)
    torch.testing.assert_close(got.softmax(1)[:, 1], z.sigmoid())


def test_an_output_that_is_not_there_is_refused() -> None:
    with pytest.raises(SutureError, match=r"output 'c' of the network, got 'a' \(4, 2\)"):
        Readout("c").pick({"a": A})
    with pytest.raises(SutureError, match="unknown kind of output 'sigmoids'; nearest: sigmoid"):
        Readout.parse("a@sigmoids")


def test_passes_and_tails_return_what_is_read() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.b(self.a(x))
            return {"features": h, "p": self.head(h).softmax(1)}

    network, x = Two().requires_grad_(False), torch.randn(5, 3)
    sited = SitedNetwork(network, x, ["a", "b"], readout=Readout("p", OutputKind.PROBABILITIES))
    done = sited.run_full(x)
    torch.testing.assert_close(done.output, network(x)["p"].log())
    torch.testing.assert_close(sited.tail(0, network.a(x), done), done.output)
    assert sited.run_tail(0, network.a(x), done).keys() == {"features", "p"}
    # The head is behind the features, the first output, and so no site of a network that is cut off at these.
    assert SitedNetwork(network, x, ["head"], readout=Readout("p")).infos[0].bypass == ()


@pytest.mark.parametrize(("head", "wanted", "unbounded"), [
    (lambda z: z.sigmoid(), {"Sigmoid"}, False),
    (lambda z: (z.sigmoid() + (2 * z).sigmoid())[:, None].squeeze(1) / 2, {"Sigmoid"}, False),
    (lambda z: torch.stack([z.softmax(1), z.sigmoid()]).mean(0), {"Sigmoid", "Softmax"}, False),
    (lambda z: 1 / (1 + (-z).exp()), {"Reciprocal"}, False),
    (lambda z: z.clamp(0, 1), {"Clamp"}, False),
    (lambda z: z.relu(), {"Relu"}, True),
    (lambda z: z.view(len(z), -1) * 2, {"Addmm"}, True),
])
def test_the_last_operation_is_seen(head: Callable[[Tensor], Tensor], wanted: set[str],
                                    unbounded: bool) -> None:
    class Head(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (head(super().forward(x)),)

    network = Head(3, 4).requires_grad_(False)
    with torch.no_grad():
        found = find_last_operations(network, torch.randn(4, 3), "0")
    assert found == wanted
    assert is_unbounded(found) == unbounded
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("x", "wanted"), [
    (Z.softmax(1), True), (Z.softmax(1).bfloat16(), True), (Z.sigmoid(), False), (torch.ones(3, 1), False),
    (torch.tensor([[1.5, -0.5]]), False), (torch.full((2, 3), torch.nan), False),
    (torch.cat([Z.softmax(1), Z[:1].sigmoid()]), False)])
def test_rows_that_sum_to_one_are_seen(x: Tensor, wanted: bool) -> None:
    assert sums_to_one(x) == wanted
