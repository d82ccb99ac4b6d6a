"""What a pass over the data fills for one comparison, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from suture._base import SutureError, is_out_of_memory, summarise_error
from suture.compare.fitting.token_share import TokenShare
from suture.compare.records import SharedSetup
from suture.compare.setup import make_nan_error
from suture.data import Batch
from suture.numbers import NonFiniteError, SharedWork
from suture.ood import DetectorFitter
from suture.representations import Accumulators, Masks, has_unpadded_tokens, select_mask

if TYPE_CHECKING:
    from suture.compare.setup import Setup


@dataclass(eq=False)
class Filling:
    """Accumulators and detectors of one comparison while a pass fills them.

    Attributes:
        accumulators: get the unpadded tokens, or those that `share` draws.
        fitter: gets native representations, always with all tokens.
        rows: number of pieces so far where both networks' inputs have unpadded tokens.
    """

    setup: SharedSetup
    accumulators: Accumulators
    fitter: DetectorFitter | None = None
    share: TokenShare | None = None
    rows: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def of(cls, setup: Setup) -> Filling:
        """Return what the pass over the fitting data of a comparison fills, still empty."""
        settings, data, detection = setup.settings, setup.data, setup.detection
        share = TokenShare(settings.token_rate, settings.seed) if settings.token_rate < 1 else None
        fitter = detection.make_fitter() if detection is not None and data.fit is data.whole else None
        return cls(setup, setup.make_accumulators(), fitter, share)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"rows": self.rows, "accumulators": self.accumulators, "share": self.share,
                "detectors": None if self.fitter is None else self.fitter.list_statistics()}

    def add(self, piece: Batch, xs: list[Tensor], ys: list[Tensor], shared: SharedWork | None = None) -> None:
        """Add a piece of a batch with the representations at the sites of both networks.

        Work on the same representations for other comparisons is `shared`.
        """
        source, target = self.setup.source, self.setup.target
        own = target.find_masks(piece.target)
        masks: list[Masks] = [source.find_masks(piece.source), own]
        if self.share is not None:
            masks = self.share.draw_masks(xs, *(select_mask(m, of.shapes[0].sequence) for m, of in zip(
                masks, (source, target), strict=True)))
        self.accumulators.update(xs, ys, masks[0], masks[1], piece.labels, shared)
        if self.fitter is not None:
            self.fitter.update(ys, piece.labels, own)
        self.rows[0] += all(map(has_unpadded_tokens, masks))

    def check(self) -> None:
        """Check after the pass that there was something to add."""
        if not self.rows[0]:
            raise SutureError("the data hold only padding tokens; give another attention mask, more data, or "
                              "a larger token_rate")

    @contextmanager
    def explain_failure(self, batch: int) -> Iterator[None]:
        """Turn an error in a batch of the data, but for running out of memory, into one line."""
        try:
            yield
        except NonFiniteError as e:
            side = self.setup.source if e.side == "source" else self.setup.target
            raise make_nan_error(side, e.index, batch, "data") from None
        except (RuntimeError, IndexError) as e:
            if is_out_of_memory(e):
                raise
            instead = ("token ids below the number of embeddings" if isinstance(e, IndexError)
                       else "batches of one input size")
            raise SutureError(f"a network fails on batch {batch} of the data, after the first ones went "
                              f"well: {summarise_error(e)}; give {instead}") from e
