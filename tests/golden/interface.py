"""The interface that others rely on: public names, their parameters, tables of indices, and help pages."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Any

import suture
from suture import indices
from tests.golden.cases import write as write_json

MODULES = ("suture", "suture.indices", "suture.zoo", "suture.sources")
SIMPLE = (str, int, float, bool, tuple, type(None))
COMMAND = re.compile(r"^\s{2}([a-z][a-z-]*)\s{2,}\S", re.MULTILINE)


def find_package(name: str) -> Any:
    """Find a public package, as the attribute that users write."""
    return suture if name == "suture" else getattr(suture, name.removeprefix("suture."))


def public(module: str) -> list[str]:
    """List what a package offers: what it defines or imports under its own name, without an underscore."""
    if module == "suture":
        return sorted(name for name in dir(suture) if not name.startswith("_"))
    found: set[str] = set()
    for node in ast.parse(Path(find_package(module).__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found |= {a.name for a in node.names if a.asname == a.name}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return sorted(name for name in found if not name.startswith("_"))


def parameters(function: Any) -> list[list[str]]:
    """List the parameters of a callable: name, kind and default where that is a simple one."""
    found = []
    for p in inspect.signature(function).parameters.values():
        simple = isinstance(p.default, SIMPLE)
        default = "required" if p.default is p.empty else repr(p.default) if simple else "an object"
        found.append([p.name, p.kind.description, default])
    return found


def callables() -> dict[str, list[list[str]]]:
    """List the parameters of every public callable, and of the public methods of public classes."""
    found = {}
    for module in MODULES:
        for name in public(module):
            thing = getattr(find_package(module), name)
            if not callable(thing) or not getattr(thing, "__module__", "").startswith("suture"):
                continue
            if not inspect.isclass(thing):
                found[f"{module}.{name}"] = parameters(thing)
                continue
            if not issubclass(thing, Exception) and not hasattr(thing, "__members__"):
                found[f"{module}.{name}"] = parameters(thing)
            classes = [c for c in reversed(thing.__mro__) if c.__module__.startswith("suture")]
            for method, of in {name: of for c in classes for name, of in vars(c).items()}.items():
                if not method.startswith("_") and callable(getattr(thing, method)):
                    found[f"{module}.{name}.{method}"] = parameters(getattr(thing, method))
                elif not method.startswith("_") and isinstance(of, property):
                    found[f"{module}.{name}.{method}"] = [["a property", "", ""]]
    return found


def tables() -> dict[str, Any]:
    """Give the tables of indices and measures as they stand before anyone adds an own one."""
    whole = {
        name: {
            "label": i.measure.label,
            "formula": i.formula,
            "source": i.source,
            "x": i.invariant_x,
            "y": i.invariant_y,
            "needs": i.needs.value,
            "least": i.least,
            "cost": i.cost,
            "smooth": i.smooth,
            "argument": i.argument,
        }
        for name, i in indices.INDICES.items()
    }
    measures = {
        n: {
            "label": m.label,
            "low": m.low,
            "high": m.high,
            "direction": m.direction,
            "about": m.about,
            "functional": m.functional,
            "judged": m.judged,
            "form": m.common_form[0],
            "native": m.native,
        }
        for n, m in suture.MEASURES.items()
        if not m.own
    }
    return {"indices": whole, "groups": indices.GROUPS, "default": indices.DEFAULT, "measures": measures}


def help_of(*command: str) -> str:
    """Give the help of a command as it is printed."""
    from suture.cli import main

    before, printed = sys.argv, io.StringIO()
    sys.argv = ["suture", *command, "--help"]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = before
    return printed.getvalue()


def write(out: Path) -> None:
    """Write everything of the interface into a folder."""
    write_json(out / "names.json", {module: public(module) for module in MODULES})
    write_json(out / "parameters.json", callables())
    write_json(out / "tables.json", tables())
    overview = help_of()
    (out / "help.txt").write_text(overview, encoding="utf-8")
    for name in COMMAND.findall(overview):
        (out / f"help_{name}.txt").write_text(help_of(name), encoding="utf-8")
