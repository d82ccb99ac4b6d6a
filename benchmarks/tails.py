"""What running a tail costs beside its share of a plain forward pass (issue 5): at most 1.1 of it.

The share of a site in the middle is the time of a forward pass less that of one that ends with the site. All
three are timed in turns, in one run. Random weights. torchvision, timm and transformers are optional: a
network whose library is missing is left out, and said so. `make test-vision` sets up .venv-vision with the
first two.
Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import claim, header
from suture.networks.calls import apply, freeze
from suture.networks.sites import SitedNetwork

Made = tuple[nn.Module, Any, str]
"""A network, its inputs and a site in the middle."""


class _Stop(Exception):
    """Ends a forward pass at the site."""


def mend_torchvision() -> None:
    """Make it importable beside a torch that its binary part does not fit, as the tests do."""
    if find_spec("torchvision") is not None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        import_module("tests_vision.conftest")


def resnet50(n: int) -> Made:
    """At 96x96, so that a batch of 4 takes a fraction of a second."""
    from torchvision.models import resnet50

    return resnet50(), torch.rand(n, 3, 96, 96), "layer3.0"


def vit_base(n: int) -> Made:
    """At 96x96: 36 patches and the class token."""
    import timm

    network = timm.create_model("vit_base_patch16_224", img_size=96)
    return network, torch.rand(n, 3, 96, 96), "blocks.5"


def gpt2(n: int) -> Made:
    """The small one, 64 tokens of padded text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    mask = torch.ones(n, 64, dtype=torch.long)
    mask[n // 2:, 48:] = 0
    ids = torch.randint(50257, (n, 64))
    return GPT2LMHeadModel(GPT2Config()), {"input_ids": ids, "attention_mask": mask}, "transformer.h.5"


NETWORKS: dict[str, Callable[[int], Made]] = {"torchvision ResNet-50": resnet50, "timm ViT-B/16": vit_base,
                                              "transformers GPT-2": gpt2}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def until(network: nn.Module, inputs: Any, site: str) -> Callable[[], None]:
    """A forward pass that ends with the site, by a plain hook."""
    def stop(*_: object) -> None:
        raise _Stop

    def run() -> None:
        handle = network.get_submodule(site).register_forward_hook(stop)
        try:
            apply(network, inputs)
        except _Stop:
            pass
        finally:
            handle.remove()

    return run


@torch.no_grad()
def ratio(made: Made, repeat: int) -> tuple[float, float]:
    """(tail / its share of the forward pass, share of the whole), medians over `repeat` turns after one to
    warm up."""
    network, inputs, site = made
    network.eval()
    sited = SitedNetwork(network, inputs, [site])
    took: list[list[float]] = []
    with freeze(network):
        done = sited.run_full(inputs)
        x = sited.pick_representations(done)[0]
        turns = (lambda: apply(network, inputs), until(network, inputs, site), lambda: sited.tail(0, x, done))
        for _ in range(repeat + 1):
            took.append([seconds(work) for work in turns])
    full, front, tail = (statistics.median(t) for t in zip(*took[1:], strict=True))
    return tail / (full - front), (full - front) / full


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=30)
    args = parser.parse_args()
    header("tails", args.n)
    mend_torchvision()
    torch.manual_seed(0)
    passed, absent = [], []
    for name, make in NETWORKS.items():
        try:
            made = make(args.n)
        except ImportError as e:
            absent.append(f"{name} ({e.name} does not import)")
            continue
        found, share = ratio(made, args.repeat)
        passed.append(claim(f"{name}, {made[2]}: tail / its share, which is {share:.2f} of the pass",
                            found, 1.1))
    if absent:
        print(f"  left out: {', '.join(absent)}")
    return 0 if passed and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
