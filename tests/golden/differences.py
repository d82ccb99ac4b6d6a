"""What differs between two folders of golden results, and by how much."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

FLOAT32, FLOAT64 = 1e-6, 1e-12
"""Allowed differences, relative to max(1, |value|): of what float32 forwards give, and of float64."""
PASSING = ("created", "command", "versions", "key", "made_from", "computed", "device", "suture", "digest")
"""Entries that say when and where a result was made."""
_PASSING_NOTE = "taken over: "
"""Beginning of notes that say so."""
HASHES = "rows/"
"""Begin of the names of tensors that are hashes of numbers, which change with the last bit."""
COMPARISONS = ("comparison.safetensors", "comparison.json")
"""Files by which a folder is known to hold a comparison, of format 2 and of format 1."""
_NUMBERS = ("value", "low", "high")
_OWN = re.compile(r"#[0-9a-f]{12}$")


@dataclass
class Differences:
    """What was found so far.

    Attributes:
        allowed: largest difference that is none; 0 means bit for bit.
        problems: one line for everything that differs by more.
        largest: largest difference of numbers seen, allowed or not.
        where: what it was seen at.
    """

    allowed: float = FLOAT32
    problems: list[str] = field(default_factory=list)
    largest: float = 0.0
    where: str = ""

    def say(self, where: str, problem: str) -> None:
        """Note a problem."""
        self.problems.append(f"{where}: {problem}")

    def equal(self, where: str, one: Any, other: Any) -> None:
        """Compare what must be equal."""
        if type(one) is not type(other) or one != other:
            self.say(where, f"expected {_short(one)}, got {_short(other)}")

    def numbers(self, where: str, one: Any, other: Any) -> None:
        """Compare floating-point numbers of one shape; NaN and infinities must be at the same places."""
        a, b = (np.atleast_1d(np.asarray(x)).astype(np.float64) for x in (one, other))
        usual = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~usual], b[~usual], equal_nan=True):
            self.say(where, "NaN or infinity at other places")
        a, b = a[usual], b[usual]
        off = np.abs(a - b) / np.maximum(1, np.abs(a))
        worst = float(off.max()) if off.size else 0.0
        if worst > self.largest:
            self.largest, self.where = worst, where
        if worst > self.allowed:
            at, count = int(off.argmax()), int((off > self.allowed).sum())
            pair = f"expected {float(a[at])!r}, got {float(b[at])!r}"
            self.say(where, f"{pair}, {worst:.1e} apart ({count} of {off.size} numbers)")

    def arrays(self, where: str, one: np.ndarray, other: np.ndarray) -> None:
        """Compare two arrays: kind and shape exactly, numbers as allowed, all else exactly."""
        if one.dtype != other.dtype or one.shape != other.shape:
            self.say(where, f"expected {one.dtype} {one.shape}, got {other.dtype} {other.shape}")
        elif one.dtype.kind == "f":
            self.numbers(where, one, other)
            if not self.allowed and one.tobytes() != other.tobytes():
                self.say(where, "other bits")
        elif not np.array_equal(one, other):
            self.say(where, f"{int((one != other).sum())} of {one.size} entries differ")

    def values(self, where: str, one: Any, other: Any) -> None:
        """Compare what JSON holds."""
        if isinstance(one, float) and isinstance(other, float):
            self.numbers(where, one, other)
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            a, b = (sorted(k for k in x if k not in PASSING) for x in (one, other))
            self.equal(f"{where} (keys)", a, b)
            for key in a:
                if key in other:
                    self.values(f"{where}/{key}", one[key], other[key])
        elif isinstance(one, list) and isinstance(other, list):
            one, other = ([v for v in x if not str(v).startswith(_PASSING_NOTE)] for x in (one, other))
            self.equal(f"{where} (length)", len(one), len(other))
            for k, (x, y) in enumerate(zip(one, other, strict=False)):
                self.values(f"{where}/{k}", x, y)
        else:
            self.equal(where, _plain(one), _plain(other))

    def tables(self, where: str, one: Path, other: Path) -> None:
        """Compare two ``table.csv``."""
        self.rows(where, *(p.read_bytes().decode() for p in (one, other)))

    def rows(self, where: str, one: str, other: str) -> None:
        """Compare two tables, given as CSV."""
        a, b = (list(csv.DictReader(io.StringIO(text, newline=""))) for text in (one, other))
        self.equal(f"{where} (columns)", list(a[0]) if a else [], list(b[0]) if b else [])
        self.equal(f"{where} (rows)", len(a), len(b))
        for x, y in zip(a, b, strict=False):
            row = f"{where}, {x['measure']} of {x['source']} into {x['target']}"
            for column in x:
                place = f"{row}, {column}"
                if column in _NUMBERS:
                    self.numbers(place, *(float(r[column]) if r.get(column) else math.nan for r in (x, y)))
                else:
                    self.equal(place, x[column], y.get(column))

    def tensors(self, where: str, one: Path, other: Path) -> None:
        """Compare two safetensors files, and what stands beside the tensors."""
        (a, about), (b, other_about) = map(_open_tensors, (one, other))
        self.named_arrays(where, a, b)
        self.values(f"{where} (about)", about, other_about)

    def named_arrays(
        self, where: str, one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]
    ) -> None:
        """Compare arrays name by name."""
        one, other = ({k: v for k, v in x.items() if not k.startswith(HASHES)} for x in (one, other))
        self.equal(f"{where} (names)", sorted(one), sorted(other))
        for name in sorted(set(one) & set(other)):
            self.arrays(f"{where}/{name}", one[name], other[name])

    def comparisons(self, where: str, one: Path, other: Path) -> None:
        """Compare the saved comparisons of two folders, whatever their format."""
        (a, table, arrays), (b, other_table, other_arrays) = map(read_comparison, (one, other))
        self.values(where, a, b)
        self.rows(where, table, other_table)
        self.named_arrays(where, arrays, other_arrays)

    def documents(self, where: str, one: Path, other: Path) -> None:
        """Compare two JSON files."""
        self.values(where, *(json.loads(p.read_text(encoding="utf-8")) for p in (one, other)))

    def pages(self, where: str, one: Path, other: Path) -> None:
        """Compare two texts, word by word."""
        a, b = (p.read_text(encoding="utf-8").split() for p in (one, other))
        if a != b:
            at = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            self.say(
                where, f"expected {' '.join(a[at : at + 8])!r}, got {' '.join(b[at : at + 8])!r} (word {at})"
            )

    def folders(self, one: Path, other: Path) -> Differences:
        """Compare two folders, file by file."""
        a, b = ({p.relative_to(f) for p in f.rglob("*") if p.is_file()} for f in (one, other))
        kept, other_kept = ({p.parent for p in x if p.name in COMPARISONS} for x in (a, b))
        for place in sorted(kept & other_kept):
            self.comparisons(f"{place.as_posix()}/comparison", one / place, other / place)
            a, b = ({p for p in x if p.parent != place or p.name == "table.csv"} for x in (a, b))
        for name in sorted(a ^ b):
            self.say(name.as_posix(), "expected, but not there" if name in a else "there, but not expected")
        how = {".csv": self.tables, ".safetensors": self.tensors, ".json": self.documents, ".txt": self.pages}
        for name in sorted(a & b):
            how[name.suffix](name.as_posix(), one / name, other / name)
        return self


def read_comparison(folder: Path) -> tuple[dict[str, Any], str, dict[str, np.ndarray]]:
    """Read a saved comparison without suture: its description, table (as CSV) and arrays.

    Format 2 is one file. Format 1 was comparison.json, table.csv and arrays.safetensors.
    """
    if (folder / COMPARISONS[0]).exists():
        arrays, metadata = _open_tensors(folder / COMPARISONS[0])
        about = metadata["about"]
        return {**about, "meta": json.loads(about["meta"]), "table": ""}, about["table"], arrays
    about = json.loads((folder / COMPARISONS[1]).read_text(encoding="utf-8"))
    for entry in ("format", "version", "save", "files"):
        del about[entry]
    table = (folder / "table.csv").read_bytes().decode()
    return {**about, "table": ""}, table, _open_tensors(folder / "arrays.safetensors")[0]


def _open_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        about = {k: json.loads(v) if v[:1] in "{[" else v for k, v in (file.metadata() or {}).items()}
        return {name: file.get_tensor(name).numpy() for name in file.keys()}, about  # noqa: SIM118


def _plain(value: Any) -> Any:
    """Leave out what a function of the user's compiles to, which depends on the version of Python."""
    return _OWN.sub("#", value) if isinstance(value, str) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]} ..."
