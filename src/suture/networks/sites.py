"""Networks with sites: the named points of any eager module, with the fronts and tails they give."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples, list_tensors
from suture.networks.calls import CallId, freeze
from suture.networks.naming import SiteSpec
from suture.networks.replays import CallRecorder, RecordedPass
from suture.networks.site_inspection import SiteInfo, SiteInspector
from suture.networks.tails import TailRunner
from suture.representations import find_sequence_lengths


class SitedNetwork:
    """A network prepared for capture and replay at chosen sites.

    A dry run on a few examples finds the sites. It checks that each tail, run from the network's own
    representation, gives the network's output. It also notes what is overwritten in place and what bypasses a
    site.

    Args:
        network: any eager module. It is not changed; it is in eval mode only while it runs here.
        inputs: a batch of inputs; the first 4 examples are used.
        sites: the sites (`SiteSpec`). Default: the repeated blocks.
        allow_bypass: accept sites that another path bypasses. The stitched network then still sees the
            target's own activations on that path. Default False: refuse them.
        name: name of the network in error messages.
        autocast: dtype of forward passes (bfloat16, float16); representations are still float32. None: the
            dtype of the weights.

    Attributes:
        network, name, sites, infos, shapes: the arguments and the results of the dry run.
        peak: bytes per example of the largest result of any module.
        peaks: for each site the same for the modules that finish with it or after it.

    Raises:
        SutureError: unknown site, module never called, no tensor, bypassed site, or a forward pass that
            cannot be replayed.
    """

    def __init__(self, network: nn.Module, inputs: Any, sites: SiteSpec = None, *, allow_bypass: bool = False,
                 name: str = "network", autocast: torch.dtype | None = None) -> None:
        self.network, self.name, self._autocast = network, name, autocast
        self._tails = TailRunner(network)
        with freeze(network):
            dry = SiteInspector(network, inputs, name, self._tails)
            self.infos: tuple[SiteInfo, ...] = tuple(dry.resolve(sites, allow_bypass))
        self.sites = tuple(i.site for i in self.infos)
        self.shapes = tuple(i.shape for i in self.infos)
        self._replay_plans = [dry.find_plan(s) for s in self.sites]
        self.peak = dry.measure_peak()
        self.peaks = tuple(dry.measure_peak_from(s) for s in self.sites)
        ends: list[CallId] = [(s.path, s.call) for s in self.sites]
        self._ends = CallRecorder(network, ends, self._tails.volatile)
        self._all = CallRecorder(network, set().union(*(s.remembered for s in self._replay_plans)),
                                 self._tails.volatile)

    def front(self, inputs: Any) -> list[Tensor]:
        """Return the representation at every site, in one pass that stops after the last site."""
        with self._cast_forward(inputs):
            done = self._ends.run(inputs, count_examples(inputs), stop=True)
        return self.pick_representations(done)

    def count_at_once(self, index: int, micro_batch: int, size: int) -> int:
        """Return how many batches of `size` examples may pass the tail of a site concatenated.

        They need no more memory there than `micro_batch` examples need in the whole network.
        """
        return max(1, micro_batch * self.peak // (self.peaks[index] * size))

    def run_full(self, inputs: Any) -> RecordedPass:
        """Run one full pass that remembers what the tails need."""
        with self._cast_forward(inputs):
            return self._all.run(inputs, count_examples(inputs))

    def run_to_sites(self, inputs: Any) -> RecordedPass:
        """Run a pass that stops as soon as it has what the tails need.

        It serves callers that do not need the network's output.
        """
        with self._cast_forward(inputs):
            return self._all.run(inputs, count_examples(inputs), stop=True)

    def _cast_forward(self, inputs: Any) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(next(list_tensors(inputs)).device.type, self._autocast)

    def pick_representations(self, done: RecordedPass) -> list[Tensor]:
        """Return the representation at every site in a pass.

        Raises:
            SutureError: a representation has another shape than in the dry run. Only the length of sequences
                may differ, and it must be that of the inputs.
        """
        found = []
        lengths = find_sequence_lengths(done.inputs) if any(s.varies for s in self.shapes) else frozenset()
        for info in self.infos:
            x = info.site.pick(done.results[info.site.path, info.site.call])
            if x is None or not info.shape.fits(x):
                got = "no tensor" if x is None else info.shape.describe_tensor(x)
                raise SutureError(f"expected {info.shape} at site {str(info.site)!r} of the {self.name}, got "
                                  f"{got}; suture needs batches of one input size")
            if info.shape.varies and x.shape[1] not in lengths:
                wanted = " or ".join(map(str, sorted(lengths))) or "none"
                raise SutureError(f"expected as many tokens at site {str(info.site)!r} of the {self.name} as "
                                  f"its inputs have, {wanted}, got {x.shape[1]}; leave this site out")
            found.append(x if self._autocast is None else x.float())
        return found

    def tail(self, index: int, x: Tensor, done: RecordedPass) -> Any:
        """Compute the network's output with `x` at site `index`, given a full pass over the same inputs.

        Args:
            index: position in `sites`.
            x: (k N, ...) representations for k concatenated copies of the N examples of `done`. They are not
                overwritten.
            done: a pass of `run_full`.
        """
        site = self.sites[index]
        if (site.path, site.call) in self._tails.volatile:
            x = x.clone()
        with self._cast_forward(done.inputs):
            return self._tails.run(site, self._replay_plans[index], x, done)
