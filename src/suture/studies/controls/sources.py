"""Negative controls: source networks that hold nothing but the class, or nothing at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import Positive, Seed, checked, expect, hash_examples, seed_torch, walk_tensors
from suture.data import read_inputs
from suture.networks import (
    Network,
    SitedNetwork,
    SiteName,
    apply,
    copy_network,
    disable_gradients,
    extract_main_output,
    freeze,
    open_network,
)
from suture.representations import Kind, Shape, get_token_mask

NOISE_SITE = "noise"
"""Name of the only site of `class_noise` and `pure_noise`."""
CLASS_SPREAD, PURE_SPREAD = 0.1, 1.0


class NoiseSource(nn.Module):
    """A network that gives noise of a given shape at its only site, `noise`, and logits after it.

    The noise of an example is drawn with its values as seed, so that it is the same in every batch and every
    pass, whatever the padding.

    Args:
        like: the network that predicts the classes.
        shape: of the noise.
        classes: number of classes.
        around: "class" for clouds around a point for each class, "nothing" for the same cloud for all.
        spread: standard deviation of the noise.
        seed: seed of the points and the noise.
    """

    def __init__(self, like: nn.Module, shape: Shape, classes: int, around: str, spread: float,
                 seed: int) -> None:
        super().__init__()
        self.like, self.shape, self.around, self.spread, self.seed = like, shape, around, spread, seed
        generator = torch.Generator().manual_seed(seed)
        dims = (1, shape.width) if shape.varies else shape.dims
        points = torch.rand(classes, *dims, generator=generator)
        self.register_buffer("points", points if around == "class" else torch.zeros_like(points))
        self.noise = nn.Identity()
        with seed_torch(seed):
            self.head = nn.Linear(shape.width, classes)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return logits (N, classes), which are those of the noise's channel means through a random map."""
        given = read_inputs(named or inputs, None)
        given = given[0] if not named and len(inputs) == 1 else given
        x = self.noise(self._draw(given, self._predict(given)))
        # One map of all positions, so that it shows where the channels are.
        scores: Tensor = self.head(x.movedim(1, -1) if self.shape.channels_first else x)
        return scores if scores.ndim == 2 else scores.flatten(1, -2).mean(1)

    @property
    def site(self) -> str:
        """The name of its only site, with the kind of the representation."""
        shape = self.shape
        if shape.kind is not Kind.TOKENS:
            return f"{NOISE_SITE}@{'map:last' if shape.last else shape.kind.value}"
        grid = "" if shape.grid is None else "," + "x".join(map(str, shape.grid))
        return f"{NOISE_SITE}@tokens:{shape.prefix}{grid}"

    @disable_gradients()
    def _predict(self, given: Any) -> Tensor:
        assert isinstance(self.points, Tensor)
        if self.around != "class":
            n = len(next(iter(walk_tensors(given))))
            return torch.zeros(n, dtype=torch.long, device=self.points.device)
        return _predict_classes(self.like, given)

    def _draw(self, given: Any, classes: Tensor) -> Tensor:
        assert isinstance(self.points, Tensor)
        mask = get_token_mask(given)
        drawn = []
        for e, key in enumerate(_hash_unpadded(given, mask)):
            of = hashlib.sha256(f"{self.seed}".encode() + key).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(of[:7], "big"))
            drawn.append(self._draw_one(generator, given, None if mask is None else mask[e].cpu()))
        noise = self.spread * torch.stack(drawn).to(self.points)
        return (self.points[classes] + noise).clamp(0, 1) if self.around == "class" else noise

    def _draw_one(self, generator: torch.Generator, given: Any, kept: Tensor | None) -> Tensor:
        if not self.shape.varies:
            return torch.randn(self.shape.dims, generator=generator)
        if kept is None:
            kept = torch.ones(next(iter(walk_tensors(given))).shape[1], dtype=torch.bool)
        full = torch.zeros(len(kept), self.shape.width)
        full[kept] = torch.randn(int(kept.sum()), self.shape.width, generator=generator)
        return full


def _hash_unpadded(given: Any, mask: Tensor | None) -> Iterator[bytes]:
    """Yield a hash of each example that does not depend on its padding."""
    if mask is None:
        yield from hash_examples(given)
        return
    tensors = list(walk_tensors(given, by_name=True))
    for e, kept in enumerate(mask):
        parts = [t[e][kept] if t.shape[1:2] == kept.shape else t[e] for t in tensors]
        yield next(hash_examples([p[None] for p in parts]))


def _predict_classes(like: nn.Module, given: Any) -> Tensor:
    logits = extract_main_output(apply(like, given))
    assert logits is not None
    return logits.argmax(1)


@checked
def class_noise(like: Network, inputs: Any, site: SiteName, *, spread: Positive = CLASS_SPREAD,
                seed: Seed = 0) -> NoiseSource:
    """Make a source network that holds nothing but the class that another network predicts.

    Its site ``noise`` has the shape of a site of `like`: a point for each class, drawn once, and around it
    noise of the example, cut to [0, 1]. The noise is a function of the example alone. Whatever calls such a
    source similar sees the class and nothing else. Source: Smith, Mannering and Marcu, ICML 2025.

    >>> noise = suture.controls.class_noise(network, images, "layer1.0")
    >>> suture.compare(noise, network, train, test, sites=[noise.site], target_sites=["layer1.0"])

    Args:
        like: the network that predicts the class, such as the target network; a copy of it is kept.
        inputs: a batch of its inputs.
        site: its site whose shape the noise has.
        spread: standard deviation of the noise; points are drawn from [0, 1].
        seed: seed of points and noise.

    Raises:
        SutureError: a network without one class for each example, or a bad site.
    """
    return _make_noise(like, inputs, site, "class", spread, seed)


@checked
def pure_noise(like: Network, inputs: Any, site: SiteName, *, spread: Positive = PURE_SPREAD,
               seed: Seed = 0) -> NoiseSource:
    """Make a source network that holds nothing of an example: noise around one point for all classes.

    Args:
        like: a network that has the site; only shapes are taken from it.
        inputs: a batch of its inputs.
        site: its site whose shape the noise has; the control's own site is called ``noise``.
        spread: standard deviation of the noise.
        seed: seed of the noise.

    Raises:
        SutureError: a network without one class for each example, or a bad site.
    """
    return _make_noise(like, inputs, site, "nothing", spread, seed)


def _make_noise(like: nn.Module, inputs: Any, site: Any, around: str, spread: float,
                seed: int) -> NoiseSource:
    given, network = read_inputs(inputs, None), copy_network(open_network(like, "network"))
    sited = SitedNetwork(network, given, [site], allow_bypass=True)
    with freeze(network), disable_gradients():
        logits = extract_main_output(apply(network, given))
    expect(logits is not None and logits.ndim == 2 and logits.shape[1] > 1,
           "a network with logits (N, classes) for a control of noise", logits,
           "give a classifier of whole examples")
    assert logits is not None
    made = NoiseSource(network, sited.shapes[0], logits.shape[1], around, spread, seed)
    return made.to(logits.device).eval()
