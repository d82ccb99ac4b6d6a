"""Records of options: a field holds the type, default, bounds and words of an option."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from functools import cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, dataclass_transform, get_type_hints

from pydantic import Field
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import Doc

from suture._base.argument_types import CONFIG, explain_refusals
from suture._base.foreign_code import explain_foreign_errors
from suture._base.global_state import leave_inference_mode
from suture._base.reporting.display import display_progress

A = TypeVar("A")
C = TypeVar("C")
R = TypeVar("R")
P = ParamSpec("P")
_WIDTH = 106


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
    made: Any = dataclass(frozen=True, kw_only=kw_only, config=CONFIG)(cls)
    made.__init__ = explain_refusals(made.__init__, made)
    made.__signature__ = _make_signature(made)
    made.__doc__ = insert_options(cls.__doc__ or "", list_options(made))
    return made  # type: ignore[no-any-return]


def takes(cls: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Turn a function of one record of the class `cls`, made by `options`, into a function of its fields.

    Editors and ``help()`` then show the fields as the function's signature. The line ``{options}`` of its
    docstring becomes the list of the options. Of a record with an option ``progress`` the function shows its
    progress as that says.
    """
    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        shows = any(f.name == "progress" for f in fields(cls))  # type: ignore[arg-type]

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with explain_foreign_errors(), leave_inference_mode():
                given = cls(*args, **kwargs)
                return _call_shown(function, given) if shows else function(given)

        returns = get_type_hints(function).get("return")
        shown: Any = call
        shown.__signature__ = _make_signature(cls).replace(return_annotation=returns)
        shown.__annotations__ = {o.name: o.type for o in list_options(cls)} | {"return": returns}
        shown.__doc__ = insert_options(function.__doc__ or "", list_options(cls))
        return call

    return decorate


def _call_shown(function: Callable[[Any], R], given: Any) -> R:
    """Call a function with a record whose progress is a function wherever it is shown."""
    with display_progress(given.progress) as shown:
        own = shown is None or shown is given.progress
        return function(given if own else replace(given, progress=shown))


def describes(cls: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Replace the line ``{options}`` of a function's docstring by the options of a record."""
    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        function.__doc__ = insert_options(function.__doc__ or "", list_options(cls))
        return function

    return decorate


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
