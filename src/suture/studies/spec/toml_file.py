"""A TOML file whose errors name the key and its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suture._base import SutureError, expect, show_value

Keys = tuple[str, ...]


EXTENDS = "extends"
"""Key of the file whose tables a file extends."""
_MOST_BASES = 10
_PATHS = ("spec", "auxiliary", "unseen", "weights")
_PLACE = re.compile(r"\{(\w+)\}(.*)")


@dataclass(frozen=True)
class TomlFile:
    """A TOML file.

    Attributes:
        path, text: of the file.
        content: what it says, together with the file that it extends.
        base: that file; None if there is none.
    """

    path: Path
    text: str
    content: Mapping[str, Any]
    base: TomlFile | None = None

    @classmethod
    def read(cls, path: Path, depth: int = 0) -> TomlFile:
        """Read a file, and the one that its key ``extends`` names, whose tables it adds to or replaces.

        Args:
            path: of the file; the one that it extends is named from its folder.
            depth: number of files that extend it.

        Raises:
            SutureError: it is missing or no TOML; the message names the line.
        """
        own = cls._read_text(path)
        if EXTENDS not in own.content:
            return own
        named = own.content[EXTENDS]
        with own.locate((EXTENDS,)):
            expect(isinstance(named, str) and bool(named), "a file that it extends", show_value(named))
            expect(depth < _MOST_BASES, f"at most {_MOST_BASES} files that extend each other",
                   repr(str(path)))
            base = cls.read(path.parent / named, depth + 1)
        content = {key: value for key, value in own.content.items() if key != EXTENDS}
        return cls(path, own.text, _extend(base.content, content), base)

    @classmethod
    def _read_text(cls, path: Path) -> TomlFile:
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
            return cls(path, text, tomllib.loads(text))
        except OSError as error:
            raise SutureError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise SutureError(f"{str(path)!r} is no TOML file: it is not text in UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise SutureError(f"{str(path)!r} is no TOML file: {error}") from error

    def fill(self, places: Mapping[str, str]) -> TomlFile:
        """Return the file with paths in place of such values as ``spec = "{cifar10}"``.

        Args:
            places: paths by name.

        Raises:
            SutureError: a name without a path; the message says where it stands.
        """
        def fill(value: Any, keys: Keys) -> Any:
            if isinstance(value, Mapping):
                return {key: fill(inner, (*keys, key)) for key, inner in value.items()}
            named = _match_place(value, keys)
            if named is None:
                return value
            if named[1] not in places:
                raise self.refuse(keys, f"expected the path of {named[1]}, got none; write "
                                        f"--data {named[1]}=PATH")
            return f"{places[named[1]]}{named[2]}"

        return replace(self, content=fill(self.content, ()))

    def list_places(self) -> list[str]:
        """Return the names that stand for paths, each once."""
        return list(dict.fromkeys(_find_places(self.content, ())))

    def get_table(self, keys: Keys) -> Mapping[str, Any]:
        """Return a table; one that is missing is empty.

        Raises:
            SutureError: there is something else.
        """
        found = _find(self.content, keys, {})
        with self.locate(keys):
            expect(isinstance(found, Mapping), f"a table [{'.'.join(keys)}]", show_value(found))
        return found  # type: ignore[no-any-return]

    @contextmanager
    def locate(self, keys: Keys) -> Iterator[None]:
        """Put file, line and key before a `SutureError` of a block."""
        try:
            yield
        except SutureError as error:
            raise self.refuse(keys, str(error)) from error

    def refuse(self, keys: Keys, problem: str) -> SutureError:
        """Return the error for what is wrong at a key, or at the nearest table above it that is there."""
        if self.base is not None and self._count_own(keys) < self.base._count_known(keys):
            return self.base.refuse(keys, problem)
        return SutureError(f"{self.path.name}, line {self.find_line(keys)}, {'.'.join(keys)}: {problem}")

    def _count_known(self, keys: Keys) -> int:
        """Return how many of the keys, from the first on, stand in the file or in one that it extends."""
        return max(self._count_own(keys), self.base._count_known(keys) if self.base is not None else 0)

    def _count_own(self, keys: Keys) -> int:
        own = tomllib.loads(self.text)
        return next(k for k in range(len(keys), -1, -1) if not k or _find(own, keys[:k]) is not None)

    def find_line(self, keys: Keys) -> int:
        """Return the line in which a key begins, counted from 1.

        It is the one after the longest beginning of the file that can be read and does not have the key.
        """
        while keys and _find(self.content, keys) is None:
            keys = keys[:-1]
        lines, before = self.text.split("\n"), 0
        for n in range(1, len(lines) + 1):
            try:
                found = tomllib.loads("\n".join(lines[:n]))
            except tomllib.TOMLDecodeError:
                continue  # within a value of several lines
            if keys and _find(found, keys) is not None:
                return before + 1
            before = n
        return 1


def _match_place(value: Any, keys: Keys) -> re.Match[str] | None:
    return _PLACE.fullmatch(value) if isinstance(value, str) and keys[-1] in _PATHS else None


def _find_places(value: Any, keys: Keys) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _find_places(inner, (*keys, key))
    elif (named := _match_place(value, keys)) is not None:
        yield named[1]


def _extend(base: Any, own: Any) -> Any:
    """Return the tables of a file with those of one that extends it; what both have is the latter's."""
    if not (isinstance(base, Mapping) and isinstance(own, Mapping)):
        return own
    return {**base, **{key: _extend(base.get(key), value) for key, value in own.items()}}


def _find(content: Any, keys: Keys, default: Any = None) -> Any:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return default
        content = content[key]
    return content
