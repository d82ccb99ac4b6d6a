"""Types of arguments, their checks, and the words of what they refuse."""

from __future__ import annotations

import inspect
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache, partial, wraps
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError
from torch import Tensor

from suture._base.errors import SutureError, make_unknown_error
from suture._base.foreign_code import explain_foreign_errors, run_foreign
from suture._base.global_state import leave_inference_mode
from suture._base.printing import show_value

R = TypeVar("R")
P = ParamSpec("P")
CONFIG = ConfigDict(arbitrary_types_allowed=True, strict=True, extra="forbid")
_WANTED = {
    "int_type": "a whole number", "float_type": "a finite number", "bool_type": "True or False",
    "string_type": "a string", "finite_number": "a finite number", "callable_type": "a function",
    "greater_than_equal": "at least {ge}", "greater_than": "above {gt}", "less_than_equal": "at most {le}",
    "less_than": "below {lt}", "is_instance_of": "{class}", "none_required": "None", "tuple_type": "a tuple",
    "list_type": "a list", "sequence_str": "a list of strings",
    "int_parsing_size": "a whole number below 2^63",
}
"""Words for the kinds of error that pydantic finds, with the names that it gives the bounds."""
_MOST_PATH = 4096
"""Longest path of Linux, in characters."""
_MOST_NAME = 255
"""Longest name of a file or folder, in bytes, on most systems."""


def refuse(wanted: str, got: str = "", instead: str = "") -> PydanticCustomError:
    """Make the error of a type's check; the message names the argument, and shows the value unless `got`."""
    return PydanticCustomError("refused", "{wanted}", {"wanted": wanted, "got": got, "instead": instead})


def _read_whole(given: Any) -> Any:
    """Return a whole number of any library as an int, and any other value unchanged."""
    try:
        return given if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return given


def _read_real(given: Any) -> Any:
    """Return a number of any library as a float, and any other value unchanged."""
    try:
        return given if isinstance(given, bool | str | bytes) else float(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # a tensor of several numbers, a huge int
        return given


def read_path(given: Any) -> Any:
    """Return a path as it was given, or refuse what names no file on any system."""
    if not isinstance(given, str | os.PathLike):
        raise refuse("a path")
    text = os.fspath(given)
    if not isinstance(text, str) or not text or "\0" in text or len(text) > _MOST_PATH or any(
            len(part.encode(errors="replace")) > _MOST_NAME for part in re.split(r"[/\\]", text)):
        raise refuse("a path", show_value(text))
    return given


def keep_parts(given: Any) -> Any:
    """Return text, tensors and mappings as they are, and the parts of any other iterable as a tuple."""
    if isinstance(given, str | bytes | Mapping | Tensor) or not isinstance(given, Iterable):
        return given
    with run_foreign("reading a list of names"):
        return tuple(given)


Whole = Annotated[int, BeforeValidator(_read_whole)]
"""A whole number, also of NumPy or PyTorch."""
Real = Annotated[float, BeforeValidator(_read_real), Field(allow_inf_nan=False)]
"""A finite number, also of NumPy or PyTorch."""
Count = Annotated[Whole, Field(ge=1, lt=2**63)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
Draws = Annotated[Whole, Field(ge=0, le=100_000)]
"""A number of random draws, 0 for none; more would not end."""
Positive = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]
FilePath = Annotated[str | os.PathLike[str], PlainValidator(read_path)]
"""A path of a file or folder, as text or `pathlib.Path`."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its annotations; bad ones raise a `SutureError`.

    A method's ``self`` has no annotation and is not checked. Errors of foreign code become a `SutureError`.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _bind(signature, function.__name__, args, kwargs)
        with explain_foreign_errors(), leave_inference_mode():
            for name, adapter in _make_adapters(function).items():
                if name in given.arguments:
                    given.arguments[name] = _check(adapter, given.arguments[name], name, function)
            return function(*given.args, **given.kwargs)

    return call


def _bind(signature: inspect.Signature, name: str, args: Any, kwargs: Any) -> inspect.BoundArguments:
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        unknown = next((k for k in kwargs if k not in signature.parameters), None)
        if unknown is not None:
            raise make_unknown_error("option", unknown, signature.parameters) from None
        raise SutureError(f"{name}: {error}; write {name}{_list_required(signature)}") from None


def _list_required(signature: inspect.Signature) -> str:
    """Return the arguments without a default, in brackets."""
    empty = inspect.Parameter.empty
    required = (p.name for p in signature.parameters.values() if p.default is empty
                and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in ("self", "cls"))
    return f"({', '.join(required)})"


@cache
def _make_adapters(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """Return what checks each argument, where it is first needed."""
    found: dict[str, TypeAdapter[Any]] = {}
    for p in inspect.signature(function).parameters.values():
        if p.annotation is p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint: Any = Any
        with suppress(NameError):  # of what only type checkers import; the function checks it
            hint = get_type_hints(SimpleNamespace(__annotations__={p.name: p.annotation}),
                                  inspect.unwrap(function).__globals__, include_extras=True)[p.name]
        if hint is not Any:
            found[p.name] = TypeAdapter(_mark_records(hint), config=CONFIG)
    return found


def _read_instance(kind: type, given: Any) -> Any:
    if not isinstance(given, kind):
        raise refuse(kind.__name__)
    return given


def _mark_records(hint: Any) -> Any:
    """Return a type in which every dataclass means its instances, which pydantic would else take apart."""
    if isinstance(hint, type) and is_dataclass(hint):
        return Annotated[Any, PlainValidator(partial(_read_instance, hint))]
    origin, parts = get_origin(hint), tuple(map(_mark_records, get_args(hint)))
    if origin in (Union, UnionType):
        return Union[parts]  # noqa: UP007
    return origin[parts] if origin in (tuple, Sequence) else hint


def _check(adapter: TypeAdapter[Any], value: Any, name: str, function: Callable[..., Any]) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _word_problem(error, function, name) from None


def explain_refusals(function: Callable[P, R], of: Any) -> Callable[P, R]:
    """Turn what pydantic raises in a function that has the signature of `of` into a `SutureError`."""
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ValidationError as error:
            raise _word_problem(error, of) from None

    return call


def _word_problem(error: ValidationError, of: Any, name: str = "") -> SutureError:
    """Word the first problem of a validation: the option, what it must be, and what was given."""
    problem = error.errors(include_url=False)[0]
    context, kind, given = problem.get("ctx", {}), problem["type"], problem["input"]
    if isinstance(context.get("error"), SutureError):
        return context["error"]  # type: ignore[no-any-return]
    parameters = inspect.signature(of).parameters
    name = name or _find_name(problem["loc"], list(parameters))
    if kind == "unexpected_positional_argument":
        return SutureError(f"expected at most {len(parameters)} arguments, got more; write options as "
                           "name=value")
    if kind.startswith("unexpected_keyword"):
        return make_unknown_error("option", name, parameters)
    if kind.startswith("missing"):
        return SutureError(f"expected {name}, got none; write {name}=...")
    if kind == "literal_error" and isinstance(given, str):
        return make_unknown_error(name, given, [w.strip(" '") for w in
                                                context["expected"].replace(" or ", ", ").split(",")])
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else problem["msg"].removeprefix(
        "Input should be ")
    return SutureError(f"{name}: expected {wanted}, got {context.get('got') or show_value(given)}"
                       f"{_advise(name, parameters.get(name), context.get('instead', ''))}")


def _find_name(place: tuple[int | str, ...], names: list[str]) -> str:
    """Return the argument at the place that pydantic gives."""
    first = place[0] if place else 0
    return str(first) if isinstance(first, str) else names[first] if first < len(names) else ""


def _advise(name: str, parameter: inspect.Parameter | None, instead: str) -> str:
    if instead:
        return f"; {instead}"
    default = inspect.Parameter.empty if parameter is None else parameter.default
    if default is inspect.Parameter.empty:
        return ""
    simple = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
    return "; leave it out for the default" + (f", {default}" if simple else "")
