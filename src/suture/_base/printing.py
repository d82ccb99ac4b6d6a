"""Text of any origin in one line: names of users, and values that were given in place of others."""

from __future__ import annotations

import unicodedata
from types import BuiltinFunctionType, FunctionType

from torch import Tensor

_MOST = 1000
_ENDS = 700, 200
"""Numbers of characters that a text keeps of its beginning and its end, if it has more than `_MOST`."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that move the cursor, colour or reverse what follows, or cannot be written."""
_JOINERS = frozenset("\u200c\u200d")
"""Signs of these categories that words and emoji are spelled with."""
_MOST_SHOWN = 120
_MOST_PARTS = 8
_MOST_BITS = 256


def escape_controls(text: str) -> str:
    """Return a text in which signs that a terminal or a reader would not show are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN
                   and c not in _JOINERS else c for c in text)


def shorten(text: str) -> str:
    """Return a text, or its beginning and its end with an ellipsis between them if it is very long."""
    first, last = _ENDS
    return text if len(text) <= _MOST else f"{text[:first]} … {text[-last:]}"


def describe_value(value: object) -> str:
    """Describe a tensor by dtype and shape, a class or function by name, any other value by its class."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, FunctionType | BuiltinFunctionType):
        return f"the function {value.__name__}"
    return type(value).__name__


def show_value(value: object) -> str:
    """Return a plain value as Python writes it, and describe any other one; no code of a user runs."""
    if isinstance(value, str | bytes | bool | None):
        kind = str if isinstance(value, str) else bytes if isinstance(value, bytes) else None
        text = repr(value) if kind is None else kind.__repr__(value)
        return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN - 20]} … {text[-18:]}"
    if isinstance(value, int):
        return int.__repr__(value) if value.bit_length() <= _MOST_BITS else "a very large whole number"
    if isinstance(value, float):
        return float.__repr__(value)
    if type(value) in (list, tuple) and len(value) <= _MOST_PARTS:  # type: ignore[arg-type]
        parts = ", ".join(map(_show_part, value))  # type: ignore[call-overload]
        return f"[{parts}]" if isinstance(value, list) else f"({parts}{',' * (len(value) == 1)})"  # type: ignore[arg-type]
    return describe_value(value)


def _show_part(part: object) -> str:
    """Show a part of a list, but not the parts of a list within it, which may contain itself."""
    return describe_value(part) if isinstance(part, list | tuple) else show_value(part)
