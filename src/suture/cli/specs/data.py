"""Data from their specs on a command line."""

from __future__ import annotations

from typing import Any

from suture import zoo
from suture._base import SutureError, make_unknown_error
from suture.cli.specs.user_code import call_user_function
from suture.data import is_spec, open_pair

DATA_NAMES = ("digits",)
DATA_ADVICE = ("or write a path, hf:NAME, torchvision:NAME@ROOT or mypackage.data:splits, which returns "
               "(train, test)")


def load_data(spec: str, *, train_size: int | None = None, test_size: int | None = None, seed: int = 0,
              image_column: str | None = None, label_column: str | None = None,
              text_column: str | None = None, skip_bad: bool = False) -> tuple[Any, Any]:
    """Return the (training data, test data) that `spec` names.

    Args:
        spec: ``digits``; ``module:function`` for a function without arguments that returns the two; or a
            path, ``hf:NAME`` or ``torchvision:NAME@ROOT`` as for `suture.data.sources.open_source`.
        train_size, test_size: number of examples, as even over the classes as they allow. Default: all.
        seed: of these draws, and of a test part that is cut from data without one.
        image_column, label_column, text_column, skip_bad: as for `suture.data.sources.open_source`; only for
            its data.

    Raises:
        SutureError: nothing has that name, the function returns something else, more examples than there are,
            an argument that these data do not have, or any problem with the files.
    """
    if spec != "digits" and is_spec(spec):
        return open_pair(spec, train_size=train_size, test_size=test_size, seed=seed,
                         image_column=image_column,
                         label_column=label_column, text_column=text_column, skip_bad=skip_bad)
    if spec != "digits" and ":" not in spec:
        raise make_unknown_error("data set", spec, DATA_NAMES, DATA_ADVICE)
    if image_column or label_column or text_column or skip_bad:
        raise SutureError(f"expected only sizes and a seed beside {spec!r}, got columns or skip_bad; these "
                          "are for files, hf: and torchvision:")
    made = (zoo.digits("train"), zoo.digits("test")) if spec == "digits" else call_user_function(spec)
    if not isinstance(made, tuple) or len(made) != 2:
        raise SutureError(f"expected {spec} to return a pair (train, test), got {type(made).__name__}")
    train, test = made
    return _take_subset(train, train_size, seed, spec), _take_subset(test, test_size, seed, spec)


def _take_subset(made: Any, n: int | None, seed: int, spec: str) -> Any:
    if n is None:
        return made
    if not callable(getattr(made, "subset", None)):
        raise SutureError(f"expected data with subset(n, seed) from {spec}, to draw {n} examples, got "
                          f"{type(made).__name__}; return as many as you want")
    return made.subset(n, seed)
