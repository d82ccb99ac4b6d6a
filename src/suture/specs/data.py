"""Data from their specs on a command line, and user code by ``module:function``: only use code you trust."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

from typing_extensions import Doc

from suture import zoo
from suture._base import (
    FOREIGN,
    Count,
    SutureError,
    describe_error,
    describe_value,
    expect,
    list_options,
    make_unknown_error,
    options,
)
from suture.data import Examples, is_spec, open_auxiliary, open_pair


@options
class ReadingOptions:
    """Options of reading data."""

    train_size: Annotated[Count | None, Doc(
        "Number of training examples, as even over the classes as they allow.")] = None
    test_size: Annotated[Count | None, Doc(
        "Number of test examples, as even over the classes as they allow.")] = None
    image_column: Annotated[str | None, Doc("Column of images. Default: found by name and type.")] = None
    label_column: Annotated[str | None, Doc("Column of labels. Default: found by name and type.")] = None
    text_column: Annotated[str | None, Doc("Column of texts. Default: found by name and type.")] = None
    classes: Annotated[str | None, Doc(
        "Numbers of the classes to keep, such as 0,2,5, which are numbered anew in this order. Default: "
        "all.")] = None
    skip_bad: Annotated[bool, Doc("Leave out examples that cannot be read, and say how many.")] = False

    def load_data(self, spec: str, seed: int) -> tuple[Any, Any]:
        """Return the (training data, test data) that `spec` names."""
        given = {o.name: getattr(self, o.name) for o in list_options(ReadingOptions)}
        return load_data(spec, seed=seed, **given)


def load_data(spec: str, *, train_size: int | None = None, test_size: int | None = None, seed: int = 0,
              classes: str | None = None, **options: Any) -> tuple[Any, Any]:
    """Return the (training data, test data) that `spec` names.

    Args:
        spec: ``digits``; ``module:function`` for a function without arguments that returns the two; or a
            path, ``hf:NAME`` or ``torchvision:NAME@ROOT`` as for `suture.data.sources.open_source`.
        train_size, test_size: number of examples, as even over the classes as possible. Default: all.
        seed: seed of these draws, and of a test part cut from data without one.
        classes: numbers of the classes to keep, such as ``"0,2,5"``. Default: all.
        options: columns and `skip_bad` of `suture.data.sources.open_source`; only for its data.
    """
    if classes is not None:
        chosen, whole = read_classes(classes), load_data(spec, seed=seed, **options)
        kept = [_select_classes(part, chosen, spec) for part in whole]
        return _take_subset(kept[0], train_size, seed, spec), _take_subset(kept[1], test_size, seed, spec)
    if spec != "digits" and is_spec(spec):
        return open_pair(spec, train_size=train_size, test_size=test_size, seed=seed, **options)
    if spec != "digits" and ":" not in spec:
        raise make_unknown_error("data set", spec, ["digits"], "write digits, a path, hf:NAME, "
                                 "torchvision:NAME@ROOT, or module:function for (train, test)")
    if any(value not in (None, False) for value in options.values()):
        raise SutureError(f"{spec!r} has no columns and no bad examples; leave out columns and skip_bad")
    made = (zoo.digits("train"), zoo.digits("test")) if spec == "digits" else call_user_function(spec)
    expect(isinstance(made, tuple) and len(made) == 2, f"a pair (train, test) from {spec}",
           describe_value(made))
    return _take_subset(made[0], train_size, seed, spec), _take_subset(made[1], test_size, seed, spec)


def read_classes(text: str) -> list[int]:
    """Return the numbers of classes that a text such as "0,2,5" lists."""
    parts = [part.strip() for part in text.split(",")]
    expect(all(part.isdecimal() for part in parts) and len(set(parts)) == len(parts),
           "numbers of classes that differ, such as 0,2,5", repr(text))
    return [int(part) for part in parts]


def _select_classes(made: Any, classes: list[int], spec: str) -> Any:
    if not callable(getattr(made, "select_classes", None)):
        raise SutureError(f"cannot select classes of {spec}: {type(made).__name__} has no "
                          "select_classes(numbers); return fewer examples")
    return made.select_classes(classes)


def runs_code(spec: str) -> bool:
    """Return True for data that a function of the user returns."""
    return spec != "digits" and not is_spec(spec) and ":" in spec


def as_image_sets(data: tuple[Any, Any], spec: str) -> tuple[zoo.ImageSet, zoo.ImageSet]:
    """Return training and test data as images to train a network of the zoo on.

    Raises:
        SutureError: the data that `spec` names are none.
    """
    fit, test = (zoo.ImageSet.of(part) if isinstance(part, Examples) else part for part in data)
    if not (isinstance(fit, zoo.ImageSet) and isinstance(test, zoo.ImageSet)):
        raise SutureError(f"expected {spec!r} to return two suture.zoo.ImageSet, to train on them")
    return fit, test


def _take_subset(made: Any, n: int | None, seed: int, spec: str) -> Any:
    if n is None:
        return made
    if not callable(getattr(made, "subset", None)):
        raise SutureError(f"cannot draw {n} examples of {spec}: {type(made).__name__} has no subset(n, seed)"
                          "; return fewer examples")
    return made.subset(n, seed)


def load_inputs(spec: str | None) -> Any:
    """Return auxiliary data that `spec` names; None gives None.

    Args:
        spec: ``module:function``, whose result is returned; or ``digits``, a path, ``hf:NAME`` or
            ``torchvision:NAME@ROOT``, whose training examples are: all of them where there is no test split,
            mixed where they are stored class by class.
    """
    if spec is None:
        return None
    expect(isinstance(spec, str) and bool(spec), "a path of data, or a function mypackage.data:inputs",
           repr(spec))
    if spec == "digits":
        return zoo.digits("train")
    if is_spec(spec):
        return open_auxiliary(spec)
    expect(":" in spec, "a path of data, or a function mypackage.data:inputs that returns data", repr(spec))
    made = call_user_function(spec)
    expect(made is not None, f"inputs or data from {spec}", "None", "return them")
    return made


def call_user_function(spec: str) -> Any:
    """Import user code from the working directory or the environment and call it."""
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except FOREIGN as e:
        hint = "run from the folder that holds it" if isinstance(e, ModuleNotFoundError) else "correct it"
        raise SutureError(f"cannot import {module!r} of {spec!r}: {describe_error(e)}; {hint}") from e
    if not callable(getattr(found, name, None)):
        raise make_unknown_error(f"function in {module}", name,
                                 [n for n in vars(found) if callable(getattr(found, n))])
    try:
        return getattr(found, name)()
    except FOREIGN as e:
        raise SutureError(f"{spec} fails: {describe_error(e)}; expected a function that works "
                          "without arguments") from e
