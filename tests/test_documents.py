"""README and docs say what is there: names and examples, options of commands, links, files."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import suture
from suture import studies
from suture.indices import Streaming
from tests.support import tiny

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN: dict[str, tuple[Any, ...]] = {
    "result": (suture.Comparison,), "first": (suture.Comparison,), "study": (suture.Study,),
    "found": (studies.Validation, studies.Sensitivity), "stream": (Streaming,)}
"""Classes of names in examples."""


def name(page: Path) -> str:
    return page.name


def read_blocks(page: Path, *languages: str) -> list[str]:
    blocks = CODE.findall(page.read_text(encoding="utf-8"))
    return [code for language, code in blocks if language in languages]


def resolve(node: ast.expr, known: dict[str, Any]) -> Any:
    """Return what a dotted name of suture means, None for other names."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        of = resolve(node.value, known)
        return None if of is None else getattr(of, node.attr)
    return None


def find_imports(tree: ast.Module) -> dict[str, Any]:
    """Return `suture` and what is imported from it."""
    known: dict[str, Any] = {"suture": suture, "indices": suture.indices}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "suture":
            made = ast.parse(ast.unparse(node))
            space: dict[str, Any] = {}
            exec(compile(made, "imports", "exec"), space)
            known |= {a.asname or a.name: space[a.asname or a.name] for a in node.names}
    return known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_names_and_options_in_examples(page: Path) -> None:
    for code in read_blocks(page, "python"):
        tree = ast.parse(code)
        known = find_imports(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                resolve(node, known)
                if isinstance(node.value, ast.Name) and node.value.id in SHOWN:
                    assert any(has(of, node.attr) for of in SHOWN[node.value.id]), ast.unparse(node)
            of = resolve(node.func, known) if isinstance(node, ast.Call) else None
            if of is not None and not isinstance(of, type(suture)):
                parameters = inspect.signature(of).parameters
                given = {k.arg for k in node.keywords if k.arg}  # type: ignore[attr-defined]
                assert given <= set(parameters), ast.unparse(node)


def has(of: Any, attribute: str) -> bool:
    return hasattr(of, attribute) or attribute in getattr(of, "__dataclass_fields__", {})


def list_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Return the commands of suture on a page: subcommand, and its options."""
    for code in read_blocks(page, "", "sh", "bash"):
        for line in re.sub(r"\s*\\\n\s*", " ", code).splitlines():
            found = re.match(r"\s*(?:\$ )?suture (\w+)(.*)", line.partition(" #")[0])
            if found:
                yield found[1], re.findall(r"(?<=\s)--[a-z][a-z-]*", found[2])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options(page: Path) -> None:
    helps = ROOT / "tests" / "golden" / "results" / "interface"
    for command, options in list_commands(page):
        text = (helps / f"help_{command}.txt").read_text(encoding="utf-8")
        assert not [o for o in options if not re.search(rf"{o}(?![a-z-])", text)], command


def make_anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = CODE.sub("", text)
    links = [*re.findall(r"\]\(([^)\s]+)\)", prose), *re.findall(r'src="([^"]+)"', prose)]
    for link in links:
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            assert target.exists(), link
            if anchor:
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in map(make_anchor, titles), link
    named = re.findall(r"`(?:python )?((?:docs|checks|tests|benchmarks|experiments|src)/[\w./-]+)[`\s]", text)
    assert not [path for path in named if "SCALE" not in path and not (ROOT / path).exists()]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= set(targets)


def test_the_ten_lines_are_a_script() -> None:
    assert read_blocks(ROOT / "README.md", "python")[0] == (ROOT / "docs" / "quickstart.py").read_text()


# -- examples that run ---------------------------------------------------------------------------------------

BRIEF = ("test=test)", "test=test, tlm=suture.TaskRecipe(epochs=1))")
BLOCKS = [("layer1.0", "block1"), ("layer2.0", "block2")]
RUNS: list[tuple[str, int, list[tuple[str, str]]]] = [
    ("README.md", 1, []), ("docs/python.md", 0, []), ("docs/distance.md", 0, [BRIEF]),
    ("docs/indices.md", 0, []), ("docs/indices.md", 1, []), ("docs/indices.md", 2, []),
    ("docs/stitching.md", 0, BLOCKS)]
"""Pages, numbers of their examples, and what is put in place of words of them."""


def make_space() -> dict[str, Any]:
    """Return what the examples take as given, but for results."""
    (network, other), (train, test) = (tiny.network(), tiny.other()), tiny.data()
    x, y = torch.rand(2, 60, 4)
    return {"suture": suture, "torch": torch, "indices": suture.indices, "network": network, "other": other,
            "a": network, "b": other, "train": train, "test": test, "images": test[0], "x": x, "x2": x[:, 1:],
            "y": y, "batches": [(x[:30], y[:30]), (x[30:], y[30:])]}


@pytest.mark.parametrize(("page", "number", "changes"), RUNS, ids=[f"{p} {n}" for p, n, _ in RUNS])
def test_an_example_runs(page: str, number: int, changes: list[tuple[str, str]], tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, space = read_blocks(ROOT / page, "python")[number], make_space()
    if "result.save" in code:
        made = suture.compare(space["network"], None, space["train"], methods=[], ood=None)
        space |= dict.fromkeys(("result", "other", "first", "second"), made)
        suture.study({"a": space["a"], "b": space["b"]}, space["train"], methods=[], ood=None, folder="study")
    for before, after in changes:
        assert before in code
        code = code.replace(before, after)
    exec(compile(code, page, "exec", dont_inherit=True), space)


def test_the_gallery_is_what_its_script_writes() -> None:
    """All but images and the table, whose making takes minutes."""
    space = runpy.run_path(str(ROOT / "docs" / "gallery.py"))
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    table = text.rpartition("```latex\n")[2].rpartition("```")[0]
    made = types.SimpleNamespace(to_latex=lambda *_, **__: table)
    assert space["write_page"]({"result": made}) == text
