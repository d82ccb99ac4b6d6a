"""A single stitched network: use, train, save and load it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import nn

from suture._base import (
    FilePath,
    SutureWarning,
    checked,
    convert_tensors,
    expect,
    fingerprint_network,
    get_python_version,
    hash_network,
    load_tensors,
    report_errors,
    save_tensors,
)
from suture.compare.invented_inputs import describe_inputs, invent_inputs
from suture.compare.key import OTHER_ROUNDING, explain_outputs, sketch_outputs
from suture.compare.opened_data import make_completion
from suture.compare.records import decode_shape, encode_shape
from suture.compare.scoring.chance import count_predictions, count_scored, describe_counts
from suture.compare.scoring.evaluation import Evaluator
from suture.data import Batch, Batches, has_lists, move_batch, read_inputs
from suture.networks import (
    Network,
    Readout,
    Site,
    SitedNetwork,
    SiteName,
    find_device,
    load_state,
    open_network,
    prepare,
    take_first,
)
from suture.representations import Alignment, AlignmentRule
from suture.results import describe_flaw
from suture.stitching import Family, StitchingLayer, Task, resolve_output

KINDS = "suture.stitch/2", "suture.stitch/1"


@dataclass(frozen=True)
class StitchedAccuracy:
    """Accuracy of a stitched network and of its target network over `n` examples or tokens (`unit`).

    `flaw` says so where the target network is not above chance (`suture.results.describe_flaw`).
    """

    stitched: float
    target: float
    n: int
    unit: Literal["examples", "tokens"]
    flaw: str = ""


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

    @checked
    def __init__(self, source: Network, target: Network, sites: tuple[SiteName, SiteName],
                 layer: StitchingLayer, inputs: Any, *, allow_bypass: bool = False,
                 device: str | torch.device = "cpu", fit: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        source, target = open_network(source, "source"), open_network(target, "target")
        where = find_device(device)
        a, b = (inputs.source, inputs.target) if isinstance(inputs, Batch) else (inputs, inputs)
        a, b = (convert_tensors(take_first(x), lambda t: t.to(where)) for x in (a, b))
        self.source_network = prepare(source, a, where, "source")
        self.target_network = prepare(target, b, where, "target")
        self.layer, self.allow_bypass, self.fit = layer.to(where), allow_bypass, dict(fit or {})
        self.fingerprints = fingerprint_network(source), fingerprint_network(target)
        self._code = [_describe_code(network) for network in (source, target)]
        self._front = SitedNetwork(self.source_network, a, [sites[0]], allow_bypass=True, name="source",
                                   checks_padding=True)
        path = Readout.parse(self.fit.get("output") or "")[0]
        self._tail = SitedNetwork(self.target_network, b, [sites[1]], allow_bypass=allow_bypass,
                                  name="target", readout=None if path is None else Readout(path),
                                  checks_padding=True)
        self._inputs, self._listed = (describe_inputs(a), describe_inputs(b)), has_lists((a, b))
        for side, found, wanted in (("source", self._front, layer.alignment.source),
                                    ("target", self._tail, layer.alignment.target)):
            expect(found.shapes[0] == wanted, f"{wanted} at the {side} site {found.sites[0]}",
                   str(found.shapes[0]), "give inputs of the size that the layer was fitted on")
        self.eval()

    @property
    def sites(self) -> tuple[Site, Site]:
        """Source site and target site."""
        return self._front.sites[0], self._tail.sites[0]

    @checked
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
        given = read_inputs(named or inputs, None, self._listed)
        given = given[0] if not named and len(inputs) == 1 else given
        return self.run(given, given)

    @checked
    def run(self, source_inputs: Any, target_inputs: Any) -> Any:
        """Return the output of `forward` for examples prepared differently for the two networks."""
        stitched = self.layer(self._front.front(source_inputs)[0], self._front.find_masks(source_inputs))
        return self._tail.run_tail(0, stitched, self._tail.run_to_sites(target_inputs))

    @checked
    def accuracy(self, data: Any) -> StitchedAccuracy | None:
        """Return the accuracies of the stitched network and its target on any data of `suture.compare`.

        The result is None without labels or logits. Output and task are those of the fit, else found as with
        ``task="auto"``.
        """
        device = next((t.device for t in self.layer.state_dict().values()), torch.device("cpu"))
        complete = make_completion(self.source_network, self.target_network)
        batches = Batches(data, device=device, complete=complete)
        first = move_batch(next(iter(batches)), device)
        scored = resolve_output(self.target_network, first.target, first.labels,
                                task=self.fit.get("task", "auto"), output=self.fit.get("output"))
        task = scored.task
        if task is Task.NONE:
            return None
        found = Evaluator(self._front, self._tail.with_readout(scored.readout), {(0, 0): self.layer},
                          first.size, task=task).run(batches, device)
        if found.correct is None or found.own_correct is None:
            return None
        n = count_scored(found)
        stitched, own = (float(c.sum(dtype=np.float64)) / n for c in (found.correct[0, 0], found.own_correct))
        flaw = describe_flaw(describe_counts(count_predictions(found), task.of_tokens))
        return StitchedAccuracy(stitched, own, n, "tokens" if task.of_tokens else "examples", flaw)

    def _sketch(self) -> dict[str, Any] | None:
        """Return numbers that show whether the networks still compute the same; None if noise fails."""
        try:
            first, second = map(invent_inputs, self._inputs)
            return sketch_outputs(self._front, self._tail, (first, second))
        except Exception:  # a network may refuse noise in any way
            return None

    @checked
    def save(self, path: FilePath) -> None:
        """Write the layer and its sites, but not the networks, to a safetensors file for `load_stitched`.

        Raises:
            SutureError: the file cannot be written, or does not end in ``.safetensors``.
        """
        a = self.layer.alignment
        about = {"sites": [s.written for s in self.sites],
                 "shapes": [encode_shape(a.source), encode_shape(a.target)], "alignment": asdict(a.rule),
                 "family": str(self.layer.affine.family), "relu": self.layer.relu,
                 "fingerprints": list(self.fingerprints), "allow_bypass": self.allow_bypass, "fit": self.fit,
                 "inputs": self._inputs, "suture": version("suture"), "code": self._code,
                 "outputs": self._sketch()}
        place = Path(path)
        expect(place.suffix == ".safetensors", "a .safetensors file", repr(place.name),
               f"write {place.stem}.safetensors")
        save_tensors(place, KINDS[0], self.layer.state_dict(), about)


@checked
def load_stitched(path: FilePath, source: Network, target: Network, inputs: Any = None, *,
                  device: str | torch.device = "cpu") -> StitchedNetwork:
    """Load the stitched network that `StitchedNetwork.save` wrote, around the networks it was fitted to.

    Args:
        path: the file.
        source, target: the networks, with unchanged weights.
        inputs: examples as for `StitchedNetwork`. Default: noise of the shapes that the layer was fitted on.
        device: device of the networks and the layer.

    Raises:
        SutureError: another kind of file or a damaged one, a layer with odd weights, networks with other
            weights, or sites that do not exist.
    """
    file = load_tensors(Path(path), *KINDS)
    if file.note:
        warnings.warn(file.note, SutureWarning, stacklevel=3)
    about = file.about
    with report_errors(f"cannot read the layer in {str(path)!r}", "fit it again"):
        prints, shapes = about["fingerprints"], [decode_shape(s) for s in about["shapes"]]
        layer = StitchingLayer(Alignment(shapes[0], shapes[1], AlignmentRule(**about["alignment"])),
                               Family.parse(about["family"]), relu=about.get("relu", False))
        sites = Site.parse(about["sites"][0]), Site.parse(about["sites"][1])
        load_state(layer, file.tensors, f"the layer in {str(path)!r}")
        first, second = map(invent_inputs, about["inputs"])
        kept = {"allow_bypass": about["allow_bypass"], "fit": about["fit"]}
    source, target = open_network(source, "source"), open_network(target, "target")
    for side, network, wanted in zip(("source", "target"), (source, target), prints, strict=True):
        got = fingerprint_network(network)
        expect(got == wanted, f"the {side} network that the layer was fitted to, {wanted}",
               f"other weights, {got}", "load those weights, or fit a new layer")
    given = Batch(first, second, None) if inputs is None else inputs
    _check_code(about.get("code"), source, target)
    made = StitchedNetwork(source, target, sites, layer, given, device=device, **kept)
    before, now = about.get("outputs"), made._sketch() if about.get("outputs") else None
    changed = explain_outputs(before, now, OTHER_ROUNDING) if before and now else ""
    expect(not changed, "networks that compute what they did when the layer was fitted", f"other {changed}",
           "restore their code, or fit a new layer")
    return made


def _describe_code(network: nn.Module) -> dict[str, str]:
    own = hash_network(network)
    return {"python": get_python_version(), "code": own.code, "structure or values": own.state}


def _check_code(known: list[dict[str, str]] | None, *networks: nn.Module) -> None:
    """Check that code and structure are those that a layer was fitted to; an old file does not know them."""
    for side, before, network in zip(("source", "target"), known or (), networks, strict=False):
        now = _describe_code(network)
        changed = next((k for k in ("code", "structure or values") if before[k] != now[k]), "")
        expect(before["python"] != now["python"] or not changed,
               f"the {side} network that the layer was fitted to", f"other {changed}",
               "restore it, or fit a new layer")
