"""Options: type, default, bounds and words of an option stand in one place, the field that holds it."""

from __future__ import annotations

import inspect
import operator
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar, dataclass_transform, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call
from pydantic.dataclasses import dataclass
from typing_extensions import Doc

from suture._base.checks import describe_value
from suture._base.errors import SutureError, make_unknown_error

C = TypeVar("C")
R = TypeVar("R")
P = ParamSpec("P")
_CONFIG = ConfigDict(arbitrary_types_allowed=True, strict=True, extra="forbid")
_WIDTH = 106
_WANTED = {
    "int_type": "a whole number", "float_type": "a finite number", "bool_type": "True or False",
    "string_type": "a string", "finite_number": "a finite number", "callable_type": "a function",
    "greater_than_equal": "at least {ge}", "greater_than": "above {gt}", "less_than_equal": "at most {le}",
    "less_than": "below {lt}", "is_instance_of": "{class}", "none_required": "None", "tuple_type": "a tuple",
}
"""Words for the kinds of error that pydantic finds, with the names that it gives the bounds."""


def _read_whole(given: Any) -> Any:
    """Return a whole number of any library as an int; leave anything else to the check of types."""
    try:
        return given if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return given


def _read_real(given: Any) -> Any:
    """Return a number of any library as a float; leave anything else to the check of types."""
    try:
        return given if isinstance(given, bool | str) else float(given)
    except (TypeError, ValueError):
        return given


Whole = Annotated[int, BeforeValidator(_read_whole)]
"""A whole number, also of NumPy or PyTorch."""
Real = Annotated[float, BeforeValidator(_read_real), Field(allow_inf_nan=False)]
"""A finite number, also of NumPy or PyTorch."""
Count = Annotated[Whole, Field(ge=1)]
"""A whole number of at least 1."""
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
"""A seed."""
Positive = Annotated[Real, Field(gt=0)]
"""A finite number above 0."""
Share = Annotated[Real, Field(gt=0, lt=1)]
"""A number between 0 and 1, both excluded."""


class Option(NamedTuple):
    """One option as its field defines it; `default` is ``inspect.Parameter.empty`` where it is required."""

    name: str
    type: Any
    default: Any
    words: str


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def options(cls: type[C]) -> type[C]:
    """Make a class a frozen dataclass whose fields are checked against their types and bounds.

    A field with its words is ``epochs: Annotated[Count, Doc("Training epochs.")] = 30``. The line
    ``{options}`` of the class's docstring becomes the list of its options. Bad values raise a `SutureError`
    that names the field.
    """
    made: Any = dataclass(frozen=True, config=_CONFIG)(cls)
    made.__init__ = _explain_errors(made.__init__, made)
    listed = list_options(made)
    made.__signature__ = make_signature(listed)
    made.__doc__ = insert_options(cls.__doc__ or "", listed)
    return made  # type: ignore[no-any-return]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its annotations; bad ones raise a `SutureError`."""
    return _explain_errors(wraps(function)(validate_call(config=_CONFIG)(function)), function)


def list_options(cls: type) -> list[Option]:
    """Return the options of a class made by `options`, in order; the type is without its bounds."""
    hints, rich = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    found = []
    for f in fields(cls):
        words = [m.documentation for m in getattr(rich[f.name], "__metadata__", ()) if isinstance(m, Doc)]
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        found.append(Option(f.name, hints[f.name],
                            inspect.Parameter.empty if default is MISSING else default,
                            words[0] if words else ""))
    return found


def make_signature(listed: list[Option], positional: int = 0, returns: Any = None) -> inspect.Signature:
    """Make the signature of a function that takes options; the first `positional` may be given by place."""
    kinds = inspect.Parameter
    return inspect.Signature(
        [kinds(o.name, kinds.POSITIONAL_OR_KEYWORD if k < positional or not positional
               else kinds.KEYWORD_ONLY, default=o.default, annotation=o.type)
         for k, o in enumerate(listed)], return_annotation=returns)


def insert_options(text: str, listed: list[Option]) -> str:
    """Return a docstring in which the line ``{options}`` is replaced by a list of options."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        if line.strip() != "{options}":
            lines.append(line)
            continue
        indent = line[:len(line) - len(line.lstrip())]
        lines += [wrapped for o in listed if o.words for wrapped in textwrap.wrap(
            f"{o.name}: {o.words}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "    ")]
    return "\n".join(lines)


def _explain_errors(function: Callable[P, R], of: Any) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ValidationError as error:
            raise _word_problem(error, of) from None

    return call


def _word_problem(error: ValidationError, of: Any) -> SutureError:
    """Word the first problem of a validation: the option, what it must be, and what was given."""
    problem = error.errors(include_url=False)[0]
    context, kind, given = problem.get("ctx", {}), problem["type"], problem["input"]
    if isinstance(context.get("error"), SutureError):
        return context["error"]  # type: ignore[no-any-return]
    names = list(inspect.signature(of).parameters)
    place = problem["loc"][0] if problem["loc"] else names[0]
    name = names[place] if isinstance(place, int) else str(place)
    if kind.startswith("unexpected_keyword"):
        return make_unknown_error(f"option of {of.__name__}", name, names)
    if kind.startswith("missing"):
        return SutureError(f"{of.__name__}: expected {name}, got none; write {name}=...")
    if kind == "literal_error" and isinstance(given, str):
        return make_unknown_error(name, given, [w.strip(" '") for w in
                                                context["expected"].replace(" or ", ", ").split(",")])
    shown = repr(given) if isinstance(given, str | int | float | None) else describe_value(given)
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else problem["msg"].removeprefix(
        "Input should be ")
    return SutureError(f"{name}: expected {wanted}, got {shown[:80]}")
