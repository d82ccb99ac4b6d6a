"""A TOML file whose errors name the key and its line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suture._base import SutureError, expect, show_value

Keys = tuple[str, ...]


@dataclass(frozen=True)
class TomlFile:
    """A TOML file.

    Attributes:
        path, text: of the file.
        content: what it says.
    """

    path: Path
    text: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read a file.

        Raises:
            SutureError: it is missing or no TOML; the message names the line.
        """
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
            return cls(path, text, tomllib.loads(text))
        except OSError as error:
            raise SutureError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise SutureError(f"{str(path)!r} is no TOML file: it is not text in UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise SutureError(f"{str(path)!r} is no TOML file: {error}") from error

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
        return SutureError(f"{self.path.name}, line {self.find_line(keys)}, {'.'.join(keys)}: {problem}")

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


def _find(content: Any, keys: Keys, default: Any = None) -> Any:
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return default
        content = content[key]
    return content
