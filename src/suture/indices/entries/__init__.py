"""The table of indices, collected from the files of this folder, and the groups of them.

A new function or a new file needs no change elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from suture.indices.definition import FROM_MOMENTS, Index, Needs
from suture.indices.nulls.held_out import FOLDS as FOLDS
from suture.numbers import register_measure

_ORDER = ("cka", "cca", "procrustes", "matching", "regression", "overlap", "distances", "neighbours")
"""Files in the order of tables; the others follow by name."""


def collect_indices() -> dict[str, Index]:
    """Collect every index that a file of this folder defines, by name."""
    files = sorted({m.name for m in iter_modules(__path__)}.difference(_ORDER))
    modules = [import_module(f"{__name__}.{name}") for name in (*_ORDER, *files)]
    return {i.name: i for module in modules for i in vars(module).values() if isinstance(i, Index)}


INDICES: Mapping[str, Index] = collect_indices()
"""Every index by name."""
for _index in INDICES.values():
    register_measure(_index.measure)
DEFAULT = ("cka", "cka_debiased", "cca", "pwcca", "pwcca_target", "opd", "r2")
_MOMENTS = tuple(name for name, i in INDICES.items() if i.needs in FROM_MOMENTS)
_ROWS = tuple(name for name, i in INDICES.items() if i.needs is Needs.ROWS)
GROUPS: Mapping[str, tuple[str, ...]] = {"default": DEFAULT, "moments": _MOMENTS, "rows": _ROWS,
                                         "all": _MOMENTS + _ROWS}
"""Names that stand for several indices, also with an alignment: ``"moments@pool"``."""
