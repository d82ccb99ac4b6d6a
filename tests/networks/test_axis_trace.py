"""The axis of the channels, whatever a block is made of and ends in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture import SutureError
from suture.networks import find_sites
from suture.networks.sites.axis_trace import AxisTrace
from tests.support.networks import noise

T, C = 12, 8
WEIGHT = noise(C, C) / 3


class Block(nn.Module):
    """One step, as a function of its layers and its input."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def conv(kernel: int = 3, width: int = C) -> nn.Conv1d:
    return nn.Conv1d(C, width, kernel, padding=kernel // 2)


def recurrent(b: Any, x: Tensor) -> Tensor:
    h, steps = x.new_zeros(len(x), C), []
    for t in range(x.shape[1]):
        h = b.a(x[:, t], h)
        steps.append(h)
    return torch.stack(steps, 1)


# Of maps (N, C, T) after a first convolution.
SIGNALS: dict[str, Callable[[], nn.Module]] = {
    "convolution": conv,
    "norm and functional relu": lambda: Block(lambda b, x: F.relu(b.n(b.a(x))), a=conv(),
                                              n=nn.BatchNorm1d(C)),
    "padding cut off": lambda: Block(lambda b, x: b.a(F.pad(x, (2, 0)))[..., :-2].tanh(), a=conv()),
    "gate": lambda: Block(lambda b, x: F.glu(b.a(x), 1), a=conv(width=2 * C)),
    "squeeze": lambda: Block(lambda b, x: x * b.a(x.mean(2)).sigmoid()[..., None], a=nn.Linear(C, C)),
    "transposed linear layer": lambda: Block(
        lambda b, x: b.a(x.transpose(1, 2)).permute(0, 2, 1).contiguous(), a=nn.Linear(C, C)),
    "layer norm, .mT": lambda: Block(lambda b, x: x + b.a(b.n(x.mT)).mT, a=nn.Linear(C, C),
                                     n=nn.LayerNorm(C)),
    "linear layer over time": lambda: nn.Linear(T, 5),
    "functional convolution": lambda: Block(lambda b, x: F.conv1d(x, WEIGHT[..., None])),
    "weight times map": lambda: Block(lambda b, x: WEIGHT @ x),
    "einsum": lambda: Block(lambda b, x: torch.einsum("nct,oc->not", x, WEIGHT)),
    "pool": lambda: nn.MaxPool1d(2), "group norm": lambda: nn.GroupNorm(2, C),
    "transposed convolution": lambda: nn.ConvTranspose1d(C, C, 2, 2),
    "interpolation": lambda: Block(lambda b, x: F.interpolate(x, scale_factor=2, mode="linear")),
    "frequencies averaged": lambda: Block(lambda b, x: b.a(x[:, None].expand(-1, 3, -1, -1)).mean(2),
                                          a=nn.Conv2d(3, C, 3, padding=1)),
}
# Of tokens (N, T, D) after a first linear layer.
TOKENS: dict[str, Callable[[], nn.Module]] = {
    "linear layer": lambda: nn.Sequential(nn.Linear(C, C), nn.ReLU()),
    "convolution transposed": lambda: Block(lambda b, x: b.a(x.transpose(1, 2)).transpose(1, 2), a=conv()),
    "batch norm over time": lambda: Block(lambda b, x: b.n(b.a(x)).relu(), a=nn.Linear(C, C),
                                          n=nn.BatchNorm1d(T)),
    "batch norm transposed": lambda: Block(lambda b, x: b.n(x.transpose(1, 2)).transpose(1, 2),
                                           n=nn.BatchNorm1d(C)),
    "gate over tokens": lambda: Block(lambda b, x: x * b.a(x), a=nn.Conv1d(T, T, 1)),
    "mixer": lambda: Block(lambda b, x: x + b.a(x.transpose(1, 2)).transpose(1, 2), a=nn.Linear(T, T)),
    "LSTM": lambda: Block(lambda b, x: b.a(x)[0], a=nn.LSTM(C, C, batch_first=True)),
    "GRU cell": lambda: Block(recurrent, a=nn.GRUCell(C, C)),
    "attention": lambda: nn.TransformerEncoderLayer(C, 2, 16, batch_first=True),
    "one head": lambda: Block(lambda b, x: (x @ x.transpose(1, 2)).softmax(-1) @ x),
    "times weight": lambda: Block(lambda b, x: x @ WEIGHT),
    "flattened and back": lambda: Block(lambda b, x: b.n(x.reshape(-1, C)).view_as(x), n=nn.BatchNorm1d(C)),
}


class Chain(nn.Module):
    def __init__(self, first: nn.Module, block: nn.Module, axis: int | None = None) -> None:
        super().__init__()
        self.first, self.block, self.end, self.axis = first, block, nn.LazyLinear(3), axis

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.block(self.first(x)).flatten(1))


def kind_of(network: nn.Module, x: Tensor, site: str = "block") -> str:
    network.eval()(x)
    return str(find_sites(network, x, [site])[0].shape)


@pytest.mark.parametrize("name", SIGNALS)
def test_channels_first_are_a_map_also_where_width_and_length_agree(name: str) -> None:
    network = Chain(nn.Conv1d(1, C, 3, padding=1), SIGNALS[name]())
    x = network.block(network.first(noise(4, 1, T)))
    assert kind_of(network, noise(4, 1, T)) == f"map {C}x{x.shape[2]}"
    if name != "linear layer over time":
        square = kind_of(Chain(nn.Conv1d(1, C, 3, padding=1), SIGNALS[name]()), noise(4, 1, C))
        assert square.startswith(f"map {C}x")


@pytest.mark.parametrize("name", TOKENS)
def test_channels_last_are_tokens(name: str) -> None:
    network = Chain(nn.Linear(5, C), TOKENS[name]())
    assert kind_of(network, noise(4, T, 5)) == f"tokens {T}x{C}"


def test_rows_of_an_image_are_no_patches() -> None:
    """Eight rows read by a recurrent layer are not four prefix tokens and 2x2 patches."""
    rows = Block(lambda b, x: x.squeeze(1))
    assert kind_of(Chain(rows, Block(lambda b, x: b.a(x)[0], a=nn.GRU(8, C, batch_first=True))),
                   noise(4, 1, 8, 8)) == f"tokens 8x{C}"


@pytest.mark.parametrize(("run", "name"), [
    (lambda b, x: b.a(x).flatten(2), "map 8x16 (4x4 patches)"),
    (lambda b, x: b.a(x).flatten(2).transpose(1, 2), "tokens 16x8 (4x4 patches)"),
    (lambda b, x: F.unfold(x, 2, stride=2).transpose(1, 2) @ torch.ones(4, C), "tokens 16x8 (4x4 patches)"),
    (lambda b, x: x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4) @ torch.ones(4, C),
     "tokens 16x8 (4x4 patches)"),
    (lambda b, x: x.expand(-1, 2, -1, -1).reshape(-1, 2, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1)
     .reshape(-1, 16, 8).matmul(WEIGHT), "tokens 16x8 (4x4 patches)"),
    (lambda b, x: b.a(x).permute(0, 2, 3, 1), "map 8x4x4 (channels last)"),
    (lambda b, x: b.a(x).mean(2), "map 8x4"),
])
def test_images_flattened(run: Any, name: str) -> None:
    network = Chain(Block(lambda b, x: x * 1), Block(run, a=nn.Conv2d(1, C, 2, 2)))
    assert kind_of(network, noise(4, 1, 8, 8)) == name


@pytest.mark.parametrize(("first", "shape", "name"), [
    (nn.Conv3d(2, C, 3, padding=1), (2, 3, 4, 4), "map 8x3x4x4"),
    (nn.Linear(2, C), (3, 4, 4, 2), "map 8x3x4x4 (channels last)"),
])
def test_volumes(first: nn.Module, shape: tuple[int, ...], name: str) -> None:
    assert kind_of(Chain(first, nn.Sequential(nn.ReLU())), noise(4, *shape)) == name


def test_attention_weights_are_no_map() -> None:
    def attend(b: Any, x: Tensor) -> Tensor:
        heads = x.view(len(x), T, 2, C // 2).transpose(1, 2)
        return (heads @ heads.mT).softmax(-1)

    network = Chain(nn.Linear(5, C), Block(attend))
    with pytest.raises(SutureError, match="product of two representations, such as attention weights"):
        kind_of(network, noise(4, T, 5))
    assert kind_of(network, noise(4, T, 5), "block@map") == f"map 2x{T}x{T}"


def test_means_are_tried_on_tensors_with_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without data they import PyTorch's compiler, for seconds, in the first comparison of a process."""
    devices, zeros = list[str](), torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda size, device: (devices.append(device), zeros(size))[1])
    x = torch.randn(4, 1, T)
    with AxisTrace(x) as trace:
        h = F.conv1d(x, torch.randn(C, 1, 3))
        mean = h.mean(2)
    assert (trace.get(h), trace.get(mean)) == (1, 1)
    assert devices == ["cpu", "cpu"]


def test_what_the_pass_does_not_show_is_asked_for_once() -> None:
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy().copy())

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g

    network = Chain(nn.Conv1d(1, C, 3, padding=1), Block(lambda b, x: Hidden.apply(x.detach()) + 0 * x.sum()))
    with pytest.raises(SutureError, match=r"write @map behind the site .* or @tokens"):
        kind_of(network, noise(4, 1, T))
    assert kind_of(network, noise(4, 1, T), "block@map") == f"map {C}x{T}"
    assert kind_of(network, noise(4, 1, T), "block@tokens") == f"tokens {C}x{T}"
