"""Data prepared for two networks, as each of them asks."""

from __future__ import annotations

from itertools import islice
from typing import Any

from suture import zoo
from suture._base import SutureError
from suture.data import Examples, Prepared, Preprocessing, TextPreprocessing, explain_token_mismatch

COMPARED_TEXTS = 256


def prepare_data(data: Any, source: Preprocessing | None, target: Preprocessing | None, *,
                 always: bool = False) -> Any:
    """Return suture's own data prepared for both networks; return other data unchanged unless `always`.

    Two tokenizers must give the same tokens.
    """
    if not (always or isinstance(data, Examples | zoo.ImageSet)):
        return data
    if (isinstance(source, TextPreprocessing) and isinstance(target, TextPreprocessing)
        and isinstance(data, Examples)):
        texts = [raw for raw, _ in islice(iter(data), COMPARED_TEXTS)]
        if why := explain_token_mismatch(source, target, texts):
            raise SutureError(f"the two networks' tokens do not correspond: {why}; compare networks "
                              "of one tokenizer")
    return Prepared(data, source, target)
