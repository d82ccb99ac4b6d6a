"""One pass over the data: representations of all sites into moments and detectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from suture._base import Progress, SutureError, summarise_error
from suture.data import Batches, cut_batch, move_batch
from suture.indices import STITCH, Needs, Value
from suture.networks import SitedNetwork, disable_gradients
from suture.numbers import NonFiniteError, draw_uniform
from suture.ood import DetectorFitter, SiteFeatures
from suture.representations import Accumulators, AccumulatorSettings, Kind, get_token_mask


class TokenShare:
    """A random share (`rate`) of the unpadded tokens, the same for every site of both networks.

    A draw depends on the seed, the number of the example, and the number of the token among the unpadded
    ones. Batches, padding and devices do not change it.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self._seen = rate, seed, 0

    def draw(self, counted: Tensor) -> Tensor:
        """Draw from the unpadded tokens of the next N examples; mask and result are (N, T) booleans."""
        n, length = counted.shape
        draws = draw_uniform(self.seed, range(self._seen, self._seen + n), length)
        self._seen += n
        drawn = torch.from_numpy(draws < self.rate).to(counted.device)
        return counted & drawn.gather(1, (counted.cumsum(1) - 1).clamp(min=0))

    def draw_masks(self, xs: list[Tensor], *masks: Tensor | None) -> list[Tensor | None]:
        """Reduce the two sides' masks to the drawn tokens; `xs` are one side's representations (N, T, D)."""
        fitting = [m for m in masks if m is not None and m.shape == xs[0].shape[:2]]
        if len(fitting) == 2 and not torch.equal(*fitting):
            return list(masks)  # the accumulators refuse these masks
        unpadded = (fitting[0] if fitting
                    else torch.ones(xs[0].shape[:2], dtype=torch.bool, device=xs[0].device))
        return [self.draw(unpadded)] * 2


def check_share(*networks: SitedNetwork) -> None:
    """Check that the same share of tokens can be drawn at every site.

    Otherwise averages and resizes would differ from the stitching layer's input.
    """
    shapes = [(n.name, site, shape) for n in networks for site, shape in zip(n.sites, n.shapes, strict=True)]
    for name, site, shape in shapes:
        if shape.kind is not Kind.TOKENS or shape.size != shapes[0][2].size:
            raise SutureError(f"token_rate below 1 needs equally many tokens at every site, got {shape} at "
                              f"{name} site {str(site)!r}; leave it out, or write token_rate=1")


def collect_moments(source: SitedNetwork, target: SitedNetwork, batches: Batches, accumulators: Accumulators,
                    *, device: torch.device, micro_batch: int, fitter: DetectorFitter | None = None,
                    share: TokenShare | None = None, progress: Progress | None = None) -> None:
    """Add the representations of all examples at all sites to `accumulators` and `fitter`.

    Args:
        source, target: the same object for self-stitching, which runs once.
        accumulators: get the unpadded tokens, or those that `share` draws.
        fitter: gets native representations, always with all tokens.
        micro_batch: examples per pass.
        progress: called as ``progress("moments", batches done, batches)``.
    """
    rows = 0
    with disable_gradients():
        for k, batch in enumerate(batches):
            for piece in cut_batch(move_batch(batch, device), micro_batch):
                try:
                    xs = source.front(piece.source)
                    ys = xs if source is target else target.front(piece.target)
                    masks = [get_token_mask(piece.source), get_token_mask(piece.target)]
                    if share is not None:
                        masks = share.draw_masks(xs, *masks)
                    accumulators.update(xs, ys, *masks)
                    if fitter is not None:
                        fitter.update(ys, piece.labels, get_token_mask(piece.target))
                except NonFiniteError as e:
                    site = (source if e.side == "source" else target).sites[e.index]
                    raise SutureError(f"NaN or inf at {e.side} site {str(site)!r} in batch {k} of the data; "
                                      "check inputs and weights, or leave this site out") from None
                except (RuntimeError, IndexError) as e:
                    raise SutureError(f"a network fails on batch {k} of the data, after the first ones went "
                                      f"well: {summarise_error(e)}; give {advise_on_error(e)}") from e
                rows += all(m is None or bool(m.any()) for m in masks)
            if progress:
                progress("moments", k + 1, batches.count_batches())
    if not rows:
        raise SutureError("the data hold only padding tokens; give another attention mask, more data, or a "
                          "larger token_rate")


def compute_paper_indices(source: SitedNetwork, target: SitedNetwork, batches: Batches,
                          asked: AccumulatorSettings, *, device: torch.device,
                          micro_batch: int, progress: Progress
                          | None = None) -> tuple[dict[tuple[int, int], dict[str, Value]], int]:
    """Compute indices with the alignments of Balogh and Jelasity (2025) on the first test examples.

    CKA uses flattened maps. The other indices use positions as rows if the shapes agree, else means over
    positions. `asked` includes requests of the alignment ``paper``. Return values by cell and name, and the
    number of examples.
    """
    papers = asked.select_requests("paper")
    views = {r.name: ("flatten",) if r.index.needs is Needs.KEPT_KERNELS else (STITCH, "pool")
             for r in papers}
    requests = [replace(r, alignment=view) for r in papers for view in views[r.name]]
    accumulators = Accumulators(source.shapes, target.shapes,
                                AccumulatorSettings(requests, precision=asked.precision),
                                same=source is target)
    collect_moments(source, target, batches, accumulators, device=device, micro_batch=micro_batch,
                    progress=progress)
    found = {}
    for i, x in enumerate(source.shapes):
        for j, y in enumerate(target.shapes):
            values = accumulators.compute_values(i, j)
            alike = replace(x, last=y.last) == y
            found[i, j] = {r.name: values[replace(r, alignment=views[r.name][0 if alike else -1]).name]
                           for r in papers}
    return found, accumulators.examples


def advise_on_error(error: Exception) -> str:
    return ("token ids below the number of embeddings" if isinstance(error, IndexError)
            else "batches of one input size")


def fit_detectors(target: SitedNetwork, batches: Batches, fitter: DetectorFitter, device: torch.device,
                  micro_batch: int) -> None:
    """Run an extra pass over all data for `fitter`, if the moments used only the first examples."""
    with disable_gradients():
        for batch in batches:
            for piece in cut_batch(move_batch(batch, device), micro_batch):
                xs = target.front(piece.target)
                for x, site, shape in zip(xs, target.sites, target.shapes, strict=True):
                    if not torch.isfinite(SiteFeatures(x, shape, get_token_mask(piece.target)).mean).all():
                        raise SutureError(f"NaN or inf at target site {str(site)!r} in the data; check "
                                          "inputs and weights, or leave this site out")
                fitter.update(xs, piece.labels, get_token_mask(piece.target))


@contextmanager
def report_network_errors(data: str, *kinds: type[Exception]) -> Iterator[None]:
    """Report a network's error on data, such as a token id without an embedding, in one line."""
    try:
        yield
    except kinds as e:
        raise SutureError(f"a network fails on the {data}: {summarise_error(e)}; give data like "
                          "the first examples") from e
