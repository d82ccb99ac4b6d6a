"""What one experiment has found, as tables on the disk, from which its page is made."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suture._base import SutureError, describe_error, describe_value, expect, replace_file

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "about.json"
_DIGITS = "%.6g"


@dataclass(frozen=True)
class Found:
    """What one part has found: tables by name, and facts as JSON."""

    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Record:
    """The tables of one experiment, and how they were made.

    Attributes:
        experiment, scale: such as "E1" and "tiny".
        tables: by name.
        about: numbers of examples, settings, versions, machine and failures, as JSON.
    """

    experiment: str
    scale: str
    tables: Mapping[str, pd.DataFrame]
    about: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> Record:
        """Write the record into a folder, and return it as it was written: numbers have six digits."""
        for name, table in self.tables.items():
            text = table.to_csv(index=False, float_format=_DIGITS, lineterminator="\n")
            replace_file(folder / f"{name}.csv", text.encode())
        about = {"experiment": self.experiment, "scale": self.scale, "tables": list(self.tables),
                 **self.about}
        replace_file(folder / ABOUT, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        return Record.load(folder)

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Read a record.

        Raises:
            SutureError: the folder holds none, or a damaged one.
        """
        import pandas as pd

        if not cls.exists(folder):
            raise SutureError(f"expected the record of an experiment in {str(folder)!r}, found none")
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            expect(isinstance(about, dict), "a JSON object", describe_value(about))
            tables = {name: pd.read_csv(io.BytesIO((folder / f"{name}.csv").read_bytes()),
                                        keep_default_na=False, na_values=[""])
                      for name in about.pop("tables")}
            return cls(about.pop("experiment"), about.pop("scale"), tables, about)
        except (ValueError, KeyError, OSError) as error:
            raise SutureError(f"the record in {str(folder)!r} is damaged: {describe_error(error)}; run the "
                              "experiment again") from error

    @staticmethod
    def exists(folder: Path) -> bool:
        """Return True if a folder holds a record."""
        return (folder / ABOUT).exists()

    def read(self, name: str) -> pd.DataFrame:
        """Return a table; one that the experiment does not have is empty."""
        import pandas as pd

        return self.tables[name] if name in self.tables else pd.DataFrame()


def join_parts(experiment: str, scale: str, parts: Mapping[str, Found], machine: str) -> Record:
    """Join what parts of an experiment have found to one record."""
    return Record(experiment, scale, join_tables({name: of.tables for name, of in parts.items()}),
                  {"parts": {name: dict(of.about) for name, of in parts.items()}, "machine": machine})


def read_parts(folder: Path) -> dict[str, Found]:
    """Return what each part of a record has found; none if there is no record, or a damaged one."""
    try:
        record = Record.load(folder)
        return {name: Found(_choose_rows(record, name), about)
                for name, about in (record.about.get("parts") or {}).items()}
    except (SutureError, KeyError, AttributeError):
        return {}


def _choose_rows(record: Record, part: str) -> dict[str, pd.DataFrame]:
    chosen = {name: of[[(word if word == word else "") == part for word in of["part"]]].drop(columns="part")
              for name, of in record.tables.items()}
    return {name: of for name, of in chosen.items() if not of.empty}


def join_tables(parts: Mapping[str, Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Join the tables of several parts of an experiment; the first column names the part."""
    import pandas as pd

    names: Sequence[str] = list(dict.fromkeys(name for tables in parts.values() for name in tables))
    found = {}
    for name in names:
        given = [tables[name].assign(part=part) for part, tables in parts.items() if name in tables]
        whole = pd.concat(given, ignore_index=True)
        found[name] = whole[["part", *(c for c in whole.columns if c != "part")]]
    return found
