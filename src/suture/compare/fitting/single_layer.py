"""The public call `stitch`: one stitching layer, fitted and, if asked, kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import Doc

from suture._base import FilePath, check_file, expect, keep_file, options, takes
from suture.compare.fitting.moments import collect, match
from suture.compare.fitting.task_loss import find_marks, measure_own_layers, train
from suture.compare.kept_run import report_checkpoints
from suture.compare.key import shorten_key
from suture.compare.records import Findings
from suture.compare.settings import CompareOptions, FitSettings, Method
from suture.compare.setup import Setup, set_up
from suture.compare.stitched_network import StitchedNetwork
from suture.networks import Network, SiteName
from suture.stitching import explain_overfit


@options
class StitchOptions(FitSettings):
    """Arguments of `suture.stitch`: two networks with a site each, data and settings of the fit."""

    source: Annotated[Network, Doc("Network that gives the front.")]
    source_site: Annotated[SiteName, Doc("Site in it.")]
    target: Annotated[Network, Doc("Network that gives the tail; `source` for self-stitching.")]
    target_site: Annotated[SiteName, Doc("Site in it.")]
    data: Annotated[Any, Doc("Examples that the layer is fitted to, as for `suture.compare`.")]
    method: Annotated[Method, Doc(
        'Way of fitting: "dm" (direct matching, closed form) or "tlm" (by gradient, with the recipe `tlm`). '
        '"tlm" with ``TaskRecipe(objective="match")`` is direct matching by gradient.',
        )] = Field(default="dm", kw_only=True)
    save_to: Annotated[FilePath | None, Doc(
        "File that the layer is saved to, with checkpoints beside it about every minute while it is fitted. "
        "The same call goes on from there. It is locked meanwhile.")] = Field(default=None, kw_only=True)
    restart: Annotated[bool, Doc(
        "Start anew: do not go on from the checkpoints of an earlier call, and remove "
        "them.")] = Field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        expect(not self.restart or self.save_to is not None, "restart with a file", "no file",
               "write save_to=")

    @property
    def comparison(self) -> CompareOptions:
        """The comparison of these two sites alone."""
        shared: Mapping[str, Any] = {name: getattr(self, name) for name in FitSettings.__annotations__}
        return CompareOptions(self.source, self.target, self.data, **shared, sites=[self.source_site],
                              target_sites=[self.target_site], methods=[self.method], indices=(), ood=None)


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
    expect(given.method != "tlm" or given.recipe.seeds == 1, "one initialisation for one stitching layer",
           f"seeds={given.recipe.seeds}", "write seeds=1, and seed= for another one")
    if given.save_to is None:
        return _fit(given, set_up(given.comparison))
    path = check_file(given.save_to, ".safetensors")
    with keep_file(path, given.restart, given.tell_progress) as open_keeper:
        setup = set_up(given.comparison)
        keeper = open_keeper(shorten_key(setup.key), setup.settings.torch_device)
        made = _fit(given, replace(setup, keeper=keeper))
        made.save(path)
    return made


def _fit(given: StitchOptions, setup: Setup) -> StitchedNetwork:
    accumulators = collect(setup)
    matched = match(setup, accumulators)
    fitted, marks = matched.fitted, {c: explain_overfit(m.residual, m.expected, None)
                                     for c, m in matched.solutions.items()}
    record: dict[str, Any] = {"method": given.method} | setup.settings.as_record(held_out=False)
    if given.method == "tlm" and not fitted.failed:
        training = train(setup, fitted)
        fitted, own = training.fitted[0], measure_own_layers(setup, training, Findings())
        record["loss"], marks = training.runs[0].curves.loss[0, 0], find_marks(setup, training, own)
    record["mark"] = marks.get((0, 0), "")
    report_checkpoints(setup)
    layers, failed = fitted.make_layers(setup)
    expect(not failed, "a layer that can be used", next(iter(failed.values()), ""))
    return StitchedNetwork(given.source, given.target, (setup.source.sites[0], setup.target.sites[0]),
                           layers[0, 0], next(iter(setup.data.fit)),
                           allow_bypass=given.allow_bypass, device=setup.settings.torch_device, fit=record)
