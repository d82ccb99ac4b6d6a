"""Sites: named points in a network, and how their names are written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from suture._base import SutureError, Whole, checked, options
from suture.networks.calls import CallId, extract_tensors
from suture.representations import ShapeOverride

_NAME = re.compile(r"(?P<path>(?:\\.|\[[^\]]*\]|[^\\#:@])+)(?:#(?P<call>[0-9]+))?"
                   r"(?::(?P<slot>(?:\\.|[^\\@])+))?(?:@(?P<taken>.*))?", re.DOTALL)
_SIGNS = re.compile(r"[\\#:@*?\[\],]|^\s|\s$")
"""Signs that a path is written with a backslash before."""
_WHOLE_NUMBER = re.compile("-?[0-9]+")


@options
class Site:
    r"""A named point in a network, written ``path#call:slot@taken``; all but the path may be left out.

    In a name, a backslash stands before each of the signs ``\ # : @ * ? [ ] ,`` of a module's own name.

    Attributes:
        path: dotted module path.
        call: number of the module's call in one forward pass, counted from 0.
        slot: key or position of the tensor in what the module returns; dots lead into nested outputs. An
            LSTM's states are ``1.0`` (h) and ``1.1`` (c), and h of its last layer is ``1.0.-1``. None: the
            first floating point tensor.
        taken: kind of the representation, such as ``tokens:1`` (`ShapeOverride.parse`). "": recognised from
            the shape. Tables leave it out.

    Raises:
        SutureError: an unknown kind of representation.
    """

    path: str
    call: Whole = 0
    slot: str | Whole | None = None
    taken: str = ""

    def __post_init__(self) -> None:
        if self.taken:
            ShapeOverride.parse(self.taken)

    @classmethod
    @checked
    def parse(cls, name: str) -> Site:
        """Parse the name of a site."""
        return NameParts.parse(name).site

    def __str__(self) -> str:
        return (escape_path(self.path) + (f"#{self.call}" if self.call else "")
                + ("" if self.slot is None else f":{_escape_slot(self.slot)}"))

    @property
    def written(self) -> str:
        """Name that `parse` reads as this site, with the text after the ``@``."""
        return f"{self}@{self.taken}" if self.taken else str(self)

    @property
    def point(self) -> Site:
        """The same site without the text after the ``@``."""
        return replace(self, taken="")

    @property
    def id(self) -> CallId:
        """The call whose output holds the representation."""
        return self.path, self.call

    def pick(self, output: Any) -> Tensor | None:
        """Return the tensor that holds the representation in what the module returned, or None."""
        return self.locate(output)[0]

    def locate(self, output: Any) -> tuple[Tensor | None, int | None]:
        """Return the tensor that holds the representation, and its entry along the first axis, or None."""
        if self.slot is not None:
            keys: list[str | int] = [self.slot]
            if isinstance(self.slot, str) and not (isinstance(output, Mapping) and self.slot in output):
                keys = [int(p) if _WHOLE_NUMBER.fullmatch(p) else p for p in self.slot.split(".")]
            for k, key in enumerate(keys):
                if isinstance(output, Tensor):
                    is_entry = (k == len(keys) - 1 and isinstance(key, int) and output.ndim > 1
                                and -len(output) <= key < len(output))
                    return (output, int(key)) if is_entry else (None, None)
                try:
                    output = output[key]
                except (KeyError, IndexError, TypeError):
                    return None, None
        return next((t for t in extract_tensors(output) if t.is_floating_point() or t.is_quantized),
                    None), None


@dataclass(frozen=True)
class NameParts:
    """The parts of a written name; `path` still has its backslashes, and may be a glob."""

    path: str
    call: int | None
    slot: str | int | None
    taken: str

    @classmethod
    def parse(cls, name: str) -> NameParts:
        """Split the name of a site into its parts."""
        m = _NAME.fullmatch(name)
        if m is None:
            raise SutureError("expected a site like 'layer1.0', 'relu#2', 'encoder:last_hidden_state' or "
                              f"'blocks.3@tokens:1', got {name!r}")
        if m["taken"] == "":
            raise SutureError(f"site {name!r}: missing representation kind after '@'; write "
                              f"{name + 'tokens:1'!r}, or leave out the '@'")
        slot: str | int | None = m["slot"]
        if isinstance(slot, str):
            slot = int(slot) if _WHOLE_NUMBER.fullmatch(slot) else _unescape(slot)
        return cls(m["path"], None if m["call"] is None else int(m["call"]), slot, m["taken"] or "")

    @property
    def site(self) -> Site:
        return self.make_site(_unescape(self.path), self.call or 0)

    def make_site(self, path: str, call: int) -> Site:
        """Return the site at a call, with this slot and kind."""
        return Site(path, call, self.slot, self.taken)


def escape_path(path: str) -> str:
    """Write the path of a module so that `Site.parse` reads it."""
    return _SIGNS.sub(lambda m: "\\" + m[0], path)


def _escape_slot(slot: str | int) -> str:
    if isinstance(slot, int):
        return str(slot)
    if _WHOLE_NUMBER.fullmatch(slot):  # a key that looks like a position
        return "\\" + slot
    return re.sub(r"[\\@,]|^\s|\s$", lambda m: "\\" + m[0], slot)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
