"""Records of options: a field holds the type, default, bounds and words of an option."""

from __future__ import annotations

import inspect
import operator
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import cache, wraps
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar, dataclass_transform, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, validate_call
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import Doc

from suture._base.errors import SutureError, describe_value, make_unknown_error

A = TypeVar("A")
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
    """Return a whole number of any library as an int, and any other value unchanged."""
    try:
        return given if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return given


def _read_real(given: Any) -> Any:
    """Return a number of any library as a float, and any other value unchanged."""
    try:
        return given if isinstance(given, bool | str) else float(given)
    except (TypeError, ValueError):
        return given


Whole = Annotated[int, BeforeValidator(_read_whole)]
"""A whole number, also of NumPy or PyTorch."""
Real = Annotated[float, BeforeValidator(_read_real), Field(allow_inf_nan=False)]
"""A finite number, also of NumPy or PyTorch."""
Count = Annotated[Whole, Field(ge=1)]
Seed = Annotated[Whole, Field(ge=0, lt=2**63)]
Positive = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, lt=1)]


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
    return _make_options(cls, False)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def keyword_options(cls: type[C]) -> type[C]:
    """Make a class as `options` does, with its own fields given by keyword only."""
    return _make_options(cls, True)


def _make_options(cls: type[C], kw_only: bool) -> type[C]:
    made: Any = dataclass(frozen=True, kw_only=kw_only, config=_CONFIG)(cls)
    made.__init__ = _explain_errors(made.__init__, made)
    made.__signature__ = _make_signature(made)
    made.__doc__ = insert_options(cls.__doc__ or "", list_options(made))
    return made  # type: ignore[no-any-return]


def takes(cls: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Turn a function of one record of the class `cls`, made by `options`, into a function of its fields.

    Editors and ``help()`` then show the fields as the function's signature. The line ``{options}`` of its
    docstring becomes the list of the options.
    """
    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(cls(*args, **kwargs))

        returns = get_type_hints(function).get("return")
        shown: Any = call
        shown.__signature__ = _make_signature(cls).replace(return_annotation=returns)
        shown.__annotations__ = {o.name: o.type for o in list_options(cls)} | {"return": returns}
        shown.__doc__ = insert_options(function.__doc__ or "", list_options(cls))
        return call

    return decorate


def describes(cls: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Replace the line ``{options}`` of a function's docstring by the options of a record."""
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        function.__doc__ = insert_options(function.__doc__ or "", list_options(cls))
        return function

    return decorate


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its annotations; bad ones raise a `SutureError`."""
    return _explain_errors(wraps(function)(validate_call(config=_CONFIG)(function)), function)


def list_options(cls: Any) -> tuple[Option, ...]:
    """Return the options of a class made by `options`, those by keyword last; types are without bounds."""
    return _list_options(cls)


@cache  # because resolving the annotations is slow, and every family needs its options for its name
def _list_options(cls: Any) -> tuple[Option, ...]:
    hints, rich = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    found = []
    for f in sorted(fields(cls), key=lambda f: bool(f.kw_only)):
        words = [m.documentation for m in getattr(rich[f.name], "__metadata__", ()) if isinstance(m, Doc)]
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        default = getattr(default, "default", default) if isinstance(default, FieldInfo) else default
        found.append(Option(f.name, hints[f.name],
                            inspect.Parameter.empty if default is MISSING else default,
                            words[0] if words else ""))
    return tuple(found)


def _make_signature(cls: Any) -> inspect.Signature:
    kinds, by_keyword = inspect.Parameter, {f.name for f in fields(cls) if f.kw_only}
    return inspect.Signature([
        kinds(o.name, kinds.KEYWORD_ONLY if o.name in by_keyword else kinds.POSITIONAL_OR_KEYWORD,
              default=o.default, annotation=o.type) for o in list_options(cls)])


def insert_options(text: str, listed: Sequence[Option]) -> str:
    """Return a docstring in which the line ``{options}`` is replaced by a list of options."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        if line.strip() != "{options}":
            lines.append(line)
            continue
        indent = line[:len(line) - len(line.lstrip())]
        lines += [wrapped for o in listed if o.words for wrapped in textwrap.wrap(
            f"{o.name}: {o.words}{_word_default(o)}", _WIDTH, initial_indent=indent,
            subsequent_indent=indent + "    ")]
    return "\n".join(lines)


def _word_default(o: Option) -> str:
    """Return the default of an option as a sentence, if it is simple and not in the option's words."""
    simple = isinstance(o.default, str | int | float) and "Default" not in o.words
    return f" Default: {o.default!r}." if simple else ""


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
        return make_unknown_error("option", name, names)
    if kind.startswith("missing"):
        return SutureError(f"{of.__name__}: expected {name}, got none; write {name}=...")
    if kind == "literal_error" and isinstance(given, str):
        return make_unknown_error(name, given, [w.strip(" '") for w in
                                                context["expected"].replace(" or ", ", ").split(",")])
    shown = repr(given) if isinstance(given, str | int | float | None) else describe_value(given)
    wanted = _WANTED[kind].format(**context) if kind in _WANTED else problem["msg"].removeprefix(
        "Input should be ")
    default = inspect.signature(of).parameters[name].default if name in names else inspect.Parameter.empty
    instead = "" if default is inspect.Parameter.empty else "; leave it out for the default"
    if instead and isinstance(default, str | int | float) and not isinstance(default, bool):
        instead += f", {default}"
    return SutureError(f"{name}: expected {wanted}, got {shown[:80]}{instead}")
