"""A single stitched network: fit, use, train, save and load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from suture._base import convert_tensors, expect, fingerprint_network, load_tensors, save_tensors, takes
from suture.compare.evaluation import Evaluator
from suture.compare.moments import collect, match
from suture.compare.records import Findings
from suture.compare.settings import StitchOptions
from suture.compare.setup import make_completion, set_up
from suture.compare.task_loss import find_marks, train
from suture.data import Batch, Batches, move_batch
from suture.networks import Site, SitedNetwork, find_device, prepare, take_first
from suture.representations import Alignment, AlignmentRule, Kind, Shape
from suture.stitching import Family, StitchingLayer, Task, resolve_task

KINDS = "suture.stitch/2", "suture.stitch/1"


@dataclass(frozen=True)
class StitchedAccuracy:
    """Accuracy of a stitched network and of its target network over `n` examples or tokens (`unit`)."""

    stitched: float
    target: float
    n: int
    unit: Literal["examples", "tokens"]


class StitchedNetwork(nn.Module):
    """A front of the source, a stitching layer and a tail of the target, called like the networks themselves.

    Both networks are private copies, frozen and always in eval mode, also after `train`. Only the layer can
    be trained, with any optimiser over ``stitched.layer.parameters()``.

    Args:
        source, target: the networks.
        sites: source site and target site.
        layer: the stitching layer between them.
        inputs: a few examples to find the sites; a `Batch` if the networks need different ones.
        allow_bypass: accept sites that another path bypasses (see `SitedNetwork`).
        device: device of the networks and the layer.
        fit: record of the fit (method, settings, marks); empty if the layer was not fitted.

    Attributes:
        source_network, target_network: the copies.
    """

    def __init__(self, source: nn.Module, target: nn.Module, sites: tuple[str | Site, str | Site],
                 layer: StitchingLayer, inputs: Any, *, allow_bypass: bool = False,
                 device: str | torch.device = "cpu", fit: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        where = find_device(device)
        a, b = (inputs.source, inputs.target) if isinstance(inputs, Batch) else (inputs, inputs)
        a, b = (convert_tensors(take_first(x), lambda t: t.to(where)) for x in (a, b))
        self.source_network = prepare(source, a, where, "source")
        self.target_network = prepare(target, b, where, "target")
        self.layer = layer.to(where)
        self.allow_bypass, self.fit = allow_bypass, dict(fit or {})
        self.fingerprints = fingerprint_network(source), fingerprint_network(target)
        self._front = SitedNetwork(self.source_network, a, [sites[0]], allow_bypass=True, name="source",
                                   checks_padding=True)
        self._tail = SitedNetwork(self.target_network, b, [sites[1]], allow_bypass=allow_bypass,
                                  name="target", checks_padding=True)
        self._inputs = _describe_inputs(a), _describe_inputs(b)
        for side, found, wanted in (("source", self._front, layer.alignment.source),
                                    ("target", self._tail, layer.alignment.target)):
            expect(found.shapes[0] == wanted, f"{wanted} at the {side} site {found.sites[0]}",
                   str(found.shapes[0]), "give inputs of the size that the layer was fitted on")
        self.eval()

    @property
    def sites(self) -> tuple[Site, Site]:
        """Source site and target site."""
        return self._front.sites[0], self._tail.sites[0]

    def train(self, mode: bool = True) -> Self:
        """Set train or eval mode of the stitching layer; the networks stay in eval mode."""
        self.training = mode
        self.layer.train(mode)
        for network in (self.source_network, self.target_network):
            network.eval()
        return self

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the target network's output for the source's stitched representation.

        Inputs are those of the networks: tensors by position, or a batch by keywords. Use `run` if the
        networks need different inputs.
        """
        given = named or (inputs[0] if len(inputs) == 1 else inputs)
        return self.run(given, given)

    def run(self, source_inputs: Any, target_inputs: Any) -> Any:
        """Return the output of `forward` for examples prepared differently for the two networks."""
        stitched = self.layer(self._front.front(source_inputs)[0], self._front.find_masks(source_inputs))
        return self._tail.tail(0, stitched, self._tail.run_to_sites(target_inputs))

    def accuracy(self, data: Any) -> StitchedAccuracy | None:
        """Return the accuracies of the stitched network and its target on any data of `suture.compare`.

        The result is None without labels or logits. Logits of tokens are scored as with ``task="auto"``.
        """
        device = next((t.device for t in self.layer.state_dict().values()), torch.device("cpu"))
        complete = make_completion(self.source_network, self.target_network)
        batches = Batches(data, device=device, complete=complete)
        first = move_batch(next(iter(batches)), device)
        task = resolve_task("auto", self.target_network, first.target, first.labels,
                            tokens=self._tail.view_output(first.target))
        if task is Task.NONE:
            return None
        found = Evaluator(self._front, self._tail, {(0, 0): self.layer}, first.size, task=task).run(
            batches, device)
        if found.correct is None or found.own_correct is None:
            return None
        n = found.examples if found.tokens is None else int(found.tokens.sum())
        stitched, own = (float(c.sum(dtype=np.float64)) / n for c in (found.correct[0, 0], found.own_correct))
        return StitchedAccuracy(stitched, own, n, "tokens" if task.of_tokens else "examples")

    def save(self, path: str | Path) -> None:
        """Write the layer and its sites, but not the networks, to a safetensors file for `load_stitched`.

        Raises:
            SutureError: the file cannot be written, or does not end in ``.safetensors``.
        """
        a = self.layer.alignment
        about = {"sites": [s.written for s in self.sites],
                 "shapes": [_encode_shape(a.source), _encode_shape(a.target)], "alignment": asdict(a.rule),
                 "family": str(self.layer.affine.family), "relu": self.layer.relu,
                 "fingerprints": list(self.fingerprints), "allow_bypass": self.allow_bypass, "fit": self.fit,
                 "inputs": self._inputs, "suture": version("suture")}
        place = Path(path)
        expect(place.suffix == ".safetensors", "a .safetensors file", repr(place.name),
               f"write {place.stem}.safetensors")
        save_tensors(place, KINDS[0], self.layer.state_dict(), about)


@takes(StitchOptions)
def stitch(given: StitchOptions) -> StitchedNetwork:
    """Fit one stitching layer and return the stitched network.

    >>> stitched = suture.stitch(a, "layer2.1", b, "layer3.0", train, method="tlm")
    >>> stitched(images).argmax(1); stitched.save("stitched.safetensors")

    Args:
        {options}

    Raises:
        SutureError: bad input, a family that the widths do not allow, a loss that is not finite.
    """
    options = given.comparison
    setup = set_up(options)
    accumulators = collect(setup)
    fitted = match(setup, accumulators).fitted
    record: dict[str, Any] = {"method": given.method} | options.as_record(held_out=False)
    if given.method == "tlm" and not fitted.failed:
        trained = train(setup, fitted)
        fitted = trained.fitted
        record |= {"loss": trained.curves.loss[0, 0],
                   "mark": find_marks(setup, trained, Findings()).get((0, 0), "")}
    expect(not fitted.failed, "a layer that can be used", next(iter(fitted.failed.values()), ""))
    return StitchedNetwork(given.source, given.target, (setup.source.sites[0], setup.target.sites[0]),
                           fitted.make_layers(setup)[0, 0], next(iter(setup.data.fit)),
                           allow_bypass=given.allow_bypass, device=setup.settings.torch_device, fit=record)


def load_stitched(path: str | Path, source: nn.Module, target: nn.Module, inputs: Any = None, *,
                  device: str | torch.device = "cpu") -> StitchedNetwork:
    """Load the stitched network that `StitchedNetwork.save` wrote, around the networks it was fitted to.

    Args:
        path: the file.
        source, target: the networks, with unchanged weights.
        inputs: examples as for `StitchedNetwork`. Default: noise of the shapes that the layer was fitted on.
        device: device of the networks and the layer.

    Raises:
        SutureError: another kind of file, networks with other weights, or sites that do not exist.
    """
    tensors, about = load_tensors(Path(path), *KINDS)
    for side, network, wanted in zip(("source", "target"), (source, target),
                                     about["fingerprints"], strict=True):
        got = fingerprint_network(network)
        expect(got == wanted, f"the {side} network that the layer was fitted to, {wanted}",
               f"other weights, {got}", "load those weights, or fit a new layer")
    first, second = about["inputs"]
    given = Batch(_invent_inputs(first), _invent_inputs(second), None) if inputs is None else inputs
    shapes = [_decode_shape(s) for s in about["shapes"]]
    layer = StitchingLayer(Alignment(shapes[0], shapes[1], AlignmentRule(**about["alignment"])),
                           Family.parse(about["family"]), relu=about.get("relu", False))
    layer.load_state_dict(tensors)
    sites = Site.parse(about["sites"][0]), Site.parse(about["sites"][1])
    return StitchedNetwork(source, target, sites, layer, given, allow_bypass=about["allow_bypass"],
                           device=device, fit=about["fit"])


def _encode_shape(shape: Shape) -> dict[str, Any]:
    return asdict(shape) | {"kind": shape.kind.value}


def _decode_shape(stored: Mapping[str, Any]) -> Shape:
    grid, rest = stored["grid"], {k: v for k, v in stored.items() if k not in ("kind", "size", "grid")}
    return Shape(Kind(stored["kind"]), size=tuple(stored["size"]),
                 grid=None if grid is None else (grid[0], grid[1]), **rest)


def _describe_inputs(inputs: Any) -> Any:
    """Return nested inputs as JSON, each tensor as type and shape of one example."""
    if isinstance(inputs, Tensor):
        one = inputs[:1] if inputs.ndim else inputs
        return {"tensor": list(one.shape), "dtype": str(one.dtype).removeprefix("torch.")}
    if isinstance(inputs, Mapping):
        return {"named": {k: _describe_inputs(v) for k, v in inputs.items()}}
    if isinstance(inputs, tuple | list):
        return {"several": [_describe_inputs(v) for v in inputs]}
    return {"value": inputs if isinstance(inputs, str | int | float | bool | None) else None}


def _invent_inputs(described: Mapping[str, Any]) -> Any:
    """Make four examples of the described shapes: noise, and ones for integers (ids, masks)."""
    if "named" in described:
        return {k: _invent_inputs(v) for k, v in described["named"].items()}
    if "several" in described:
        return tuple(_invent_inputs(v) for v in described["several"])
    if "tensor" not in described:
        return described["value"]
    dtype, shape = getattr(torch, described["dtype"]), described["tensor"]
    size = [4, *shape[1:]] if shape else []
    noise = torch.rand(size, generator=torch.Generator().manual_seed(0))
    return noise.to(dtype) if dtype.is_floating_point else torch.ones(size, dtype=dtype)
