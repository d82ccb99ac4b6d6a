"""Networks with sites: the named points of any eager module, with a front and a tail for each.

>>> found = find_sites(network, images)            # the repeated blocks, in order of execution
>>> capture(network, images, ["layer1.0"])         # one forward pass that stops after the last site
>>> run_tail(network, images, "layer1.0", x)       # only what comes after the site
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, checked, count_examples, list_tensors
from suture.data import Batch, MicroBatch, read_inputs
from suture.networks.calls import CallId, dequantise, disable_gradients, extract_main_output, freeze
from suture.networks.input_sequences import Text
from suture.networks.network_argument import Network
from suture.networks.outputs import Readout
from suture.networks.padding import PaddingGuard
from suture.networks.sites.capture_and_replay import RecordedPass, capture_calls, replay
from suture.networks.sites.inspection import SiteInfo, SiteInspector
from suture.networks.sites.site_choice import SiteName, SiteSpec
from suture.networks.wrappers.unwrapping import unwrap
from suture.representations import Masks


class SitedNetwork:
    """A network prepared for capture and replay at chosen sites.

    A dry run on a few examples finds the sites and what bypasses them. It checks that each tail, run on the
    network's own representation, gives the network's output.

    Args:
        network: any eager module. It is not changed; it is in eval mode only while it runs here.
        inputs: a batch of inputs; the first 4 examples are used.
        sites: the sites (`SiteSpec`). Default: the repeated blocks.
        allow_bypass: accept sites that another path bypasses. On that path the stitched network still uses
            the target's own activations. Default False: refuse them.
        name: name of the network in error messages.
        autocast: dtype of forward passes; representations stay float32. None: the dtype of the weights.
        readout: how the scored tensor is read from the output, in place of which passes and tails return it.
            None: they return the output.
        checks_padding: check that padding does not change the numbers (`PaddingGuard`). Default: give what
            the network gives for the inputs as they are.

    Attributes:
        sites, infos, shapes: the sites, and the results of the dry run for each.
        peak: bytes per example of the largest output of any module.
        peaks: for each site the same, for the site's module and those that finish after it.

    Raises:
        SutureError: an unknown, uncalled or bypassed site, no tensor there, or a pass that cannot be
            replayed.
    """

    def __init__(self, network: nn.Module, inputs: Any, sites: SiteSpec = None, *, allow_bypass: bool = False,
                 name: str = "network", autocast: torch.dtype | None = None,
                 readout: Readout | None = None, checks_padding: bool = False) -> None:
        network = unwrap(network, name)
        self.network, self.name, self._autocast, self.readout = network, name, autocast, readout
        with freeze(network):
            dry = SiteInspector(network, inputs, name, self._pick_main)
            self.infos: tuple[SiteInfo, ...] = tuple(dry.resolve(sites, allow_bypass))
        self._has_new_plans = False
        self.sites = tuple(i.site for i in self.infos)
        self.shapes = tuple(i.shape for i in self.infos)
        self.peak, self.peaks = dry.measure_peak(), tuple(map(dry.measure_peak, self.sites))
        self._plans = [dry.plans[s] for s in self.sites]
        self._volatile, self.sequences = dry.volatile, dry.sequences
        self._remembered = set().union(*(p.remembered for p in self._plans))
        weights = (p.dtype for p in network.parameters() if p.is_floating_point())
        self._rounds_together = dry.rounds_together
        dtype = autocast or next(weights, torch.float32)
        self._dtype = torch.bfloat16 if dtype.itemsize == 1 or self._rounds_together else dtype
        self._guard = self._make_guard() if checks_padding else None

    def _make_guard(self) -> PaddingGuard:
        return PaddingGuard(self.network, self.sequences, self._run_unpadded, [*map(str, self.sites)],
                            self.shapes, self.name, self._dtype)

    def with_name(self, name: str) -> SitedNetwork:
        """Return the same network under another name in messages, without the notes so far."""
        made = copy(self)
        made.name = name
        made._guard = None if self._guard is None else made._make_guard()
        return made

    def with_readout(self, readout: Readout) -> SitedNetwork:
        """Return the same network whose passes and tails return what `readout` reads."""
        made = copy(self)
        made.readout = readout
        return made

    def front(self, inputs: Any) -> list[Tensor]:
        """Return the representation at every site, in one pass that stops after the last site."""
        return self.pick_representations(self._run(inputs, {s.id for s in self.sites}, stop=True))

    def find_masks(self, inputs: Any) -> Masks:
        """Return the masks of a batch, False at padding tokens; None without any."""
        return self.sequences.find_masks(inputs)

    def find_text(self, inputs: Any) -> Text | None:
        """Return the token ids of a batch that are not the decoder's; None without any."""
        return self.sequences.find_text(inputs)

    def view_output(self, inputs: Any) -> Any:
        """Return the inputs that the output follows: of an encoder-decoder, those of the decoder."""
        return self.sequences.view_output(inputs)

    def count_at_once(self, index: int, micro_batch: int, size: int) -> int:
        """Compute how many batches of `size` examples a tail can run at once in a micro-batch's memory.

        It is one where numbers depend on the rest of a batch, for cells must not depend on each other.
        """
        if self._rounds_together:
            return 1
        return max(1, micro_batch * self.peak // (self.peaks[index] * size))

    def run_full(self, inputs: Any) -> RecordedPass:
        """Run one full pass that remembers what the tails need."""
        done = self._run(inputs, self._remembered)
        return done if self.readout is None else replace(done, output=self.readout.read(done.output))

    def run_to_sites(self, inputs: Any) -> RecordedPass:
        """Run a pass that remembers what the tails need and then stops, without the network's output."""
        return self._run(inputs, self._remembered, stop=True)

    @property
    def notes(self) -> list[str]:
        """What the batches so far have shown about padding and rounding, in sentences."""
        return [*([] if self._guard is None else self._guard.notes), *(
            [f"the {self.name} rounds to 8 bits with a scale of the whole batch: its numbers depend on the "
             "batches"] if self._rounds_together else [])]

    @disable_gradients()
    def _run_unpadded(self, inputs: Any) -> tuple[list[Tensor], Any]:
        with self._cast_forward(inputs):
            done = capture_calls(self.network, inputs, {s.id for s in self.sites}, self._volatile)
        return self.pick_representations(done), self._pick_main(done.output)

    def _run(self, inputs: Any, calls: Collection[CallId], *, stop: bool = False) -> RecordedPass:
        if self._guard is not None:
            inputs = self._guard.complete(inputs)
            if self._guard.makes_positions and not self._has_new_plans:
                self._renew_plans(inputs)
        with self._cast_forward(inputs):
            return capture_calls(self.network, inputs, calls, self._volatile, stop=stop)

    def _cast_forward(self, inputs: Any) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(next(list_tensors(inputs)).device.type, self._autocast)

    def _pick_main(self, output: Any) -> Tensor | None:
        return extract_main_output(output) if self.readout is None else self.readout.pick(output)

    def _renew_plans(self, inputs: Any) -> None:
        """Plan the replays again, for inputs with positions that differ between examples."""
        self._has_new_plans = True
        with freeze(self.network):
            dry = SiteInspector(self.network, inputs, self.name, self._pick_main)
            dry.resolve(self.sites, allow_bypass=True)
        self._plans = [dry.plans[s] for s in self.sites]
        self._volatile |= dry.volatile

    def pick_representations(self, done: RecordedPass) -> list[Tensor]:
        """Return the representation at every site in a pass.

        Raises:
            SutureError: a shape other than in the dry run, apart from the length of the input sequences.
        """
        found = []
        for plan, shape in zip(self._plans, self.shapes, strict=True):
            site = plan.site
            x = plan.read(done.results[site.id])
            if x is None or not shape.fits(x):
                got = "no tensor" if x is None else shape.describe_tensor(x)
                raise SutureError(f"expected {shape} at site {str(site)!r} of the {self.name}, got "
                                  f"{got}; give batches of one input size")
            lengths = (self.sequences.find_lengths(done.inputs, shape.sequence) if shape.varies
                       else frozenset())
            if shape.varies and (count := shape.get_size(x)[0]) not in lengths:
                wanted = " or ".join(map(str, sorted(lengths))) or "none"
                raise SutureError(f"expected as many tokens at site {str(site)!r} of the {self.name} as "
                                  f"its inputs have, {wanted}, got {count}; leave this site out")
            x = dequantise(x)
            found.append(x if self._autocast is None else x.float())
        return found

    def tail(self, index: int, x: Tensor, done: RecordedPass) -> Any:
        """Compute the network's output with `x` at the site with the number `index`, as `run_full` does.

        Args:
            x: (k N, ...) representations for k copies of the N examples of `done`; not overwritten.
            done: a pass of `run_full` over the N examples.
        """
        output = self.run_tail(index, x, done)
        return output if self.readout is None else self.readout.read(output)

    def run_tail(self, index: int, x: Tensor, done: RecordedPass) -> Any:
        """Compute the whole output of the network, whatever is scored, with `x` at a site."""
        site = self.sites[index]
        own = site.pick(done.results[site.id])
        if self._autocast is None and own is not None and own.is_floating_point():
            x = x.to(own.dtype)
        if site.id in self._volatile:
            x = x.clone()
        with self._cast_forward(done.inputs):
            return replay(self.network, self._plans[index], x, done, self._volatile)


@checked
def find_sites(network: Network, inputs: Any, sites: SiteSpec = None, *,
               allow_bypass: bool = True) -> tuple[SiteInfo, ...]:
    """Find the sites of a network, in order of execution, with their shapes and what bypasses them.

    Args:
        network: any eager module; it is not changed.
        inputs: a batch: a tensor, a tuple of arguments or a mapping of keyword arguments.
        sites: names, globs (``"layer*.*"``), a function of (path, module), or None for the repeated blocks.
        allow_bypass: list bypassed sites too (default), instead of refusing them.
    """
    return SitedNetwork(network, read_inputs(inputs, None), sites, allow_bypass=allow_bypass).infos


@checked
@disable_gradients()
def capture(network: Network, inputs: Any, sites: SiteSpec = None) -> dict[str, Tensor]:
    """Capture representations by site name, in one forward pass that stops after the last site.

    If memory runs out, the batch passes in parts. The network runs in eval mode and is left as it was. Its
    in-place changes do not reach the returned tensors.
    """
    inputs = read_inputs(inputs, None)
    sited = SitedNetwork(network, inputs, sites, allow_bypass=True)
    whole = MicroBatch(count_examples(inputs), "in the pass to the sites")
    with freeze(sited.network):
        found = [xs for _, xs in whole.map(Batch(inputs, inputs, None), None,
                                           lambda piece: sited.front(piece.source))]
    joined = found[0] if len(found) == 1 else [torch.cat(parts) for parts in zip(*found, strict=True)]
    return dict(zip(map(str, sited.sites), joined, strict=True))


@checked
def run_tail(network: Network, inputs: Any, site: SiteName, x: Tensor, *,
             allow_bypass: bool = False) -> Any:
    """Compute the network's output on `inputs` with the representation at `site` replaced by `x`.

    Args:
        network: any eager module; it runs in eval mode and is left as it was.
        inputs: the batch of N examples that `x` belongs to.
        x: (k N, ...) representations: one for each example, or k such batches concatenated.
        allow_bypass: accept a site that another path bypasses (default False).
    """
    inputs = read_inputs(inputs, None)
    sited = SitedNetwork(network, inputs, [site], allow_bypass=allow_bypass)
    with freeze(sited.network):
        with disable_gradients():
            done = sited.run_to_sites(inputs)
        return sited.tail(0, x, done)
