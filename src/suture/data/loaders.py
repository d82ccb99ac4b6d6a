"""The user's loader: how many examples it yields, and what its errors say."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager, suppress
from typing import Any

from torch.utils.data import BatchSampler

from suture._base import FOREIGN, SutureError, is_out_of_memory, summarise_error


def count_loaded_examples(loader: Any) -> int | None:
    """Return the number of examples that a loader yields in a pass, or None where it is unknown.

    A batch sampler of the user's own, and a dataset that yields batches itself, do not tell.
    """
    batches = getattr(loader, "batch_sampler", loader)  # others than PyTorch's have a sampler alone
    own = hasattr(loader, "batch_sampler") and type(batches) is not BatchSampler
    sampler = getattr(batches, "sampler", None)
    if own or not isinstance(sampler, Sized):
        return None
    with suppress(Exception):  # a `__len__` of the user's, which may not know either
        left_out = len(sampler) % batches.batch_size if getattr(batches, "drop_last", False) else 0
        return len(sampler) - left_out
    return None


@contextmanager
def report_reading(what: str) -> Iterator[None]:
    """Turn an error of a user's Dataset or loader in a block into one line; `what` is what is read."""
    try:
        yield
    except SutureError:
        raise
    except FOREIGN as e:
        if is_out_of_memory(e):
            raise SutureError(f"memory ran out while {what} was read; give smaller batches, or a loader that "
                              "reads less at once") from e
        raise SutureError(f"reading {what} fails: {_explain_reading(e)}") from e


def _explain_reading(error: BaseException) -> str:
    """Say in a line what went wrong in a user's Dataset or loader, and what to do."""
    if isinstance(error, EOFError):
        return "a worker of the loader has ended, such as by sys.exit; correct the Dataset or the loader"
    lines = str(error).splitlines()
    # A worker process hands over the whole traceback, with the error at its end.
    what = (lines[-1] if lines[:1] and lines[0].startswith("Caught ")
            else f"{type(error).__name__}: {summarise_error(error)}")
    if any(words in what for words in ("equal size", "batch must contain")):
        return f"{what}; pad in collate_fn, or give the Dataset without a loader"
    return f"{what}; correct the Dataset or the loader"
