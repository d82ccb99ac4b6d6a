"""List the messages of suture's errors and the words of its options, as templates.

    python checks/messages.py            # compares with checks/messages.txt; exit code 1 where they differ
    python checks/messages.py --write    # writes that file: read its diff

Wording is pinned in that file alone. Tests pin the kind of an error and the value that it names.
A message has at most 25 words, each placeholder counting as one, and none of the riddles below.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path("src/suture")
KEPT = Path("checks/messages.txt")
MOST_WORDS = 25
RIDDLES = ("behind the @", "tokens that count", "shelf", "got otherwise", "mend ", "that mixes them")


def read_template(node: ast.expr | None) -> str:
    """Return the text of an expression, with ``{}`` for what is only known when it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(v, ast.FormattedValue) else read_template(v) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return read_template(node.left) + read_template(node.right)
    return "{}"


def word_call(call: ast.Call) -> str | None:
    """Return the message that a call makes, or None for any other call."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    named = {k.arg: k.value for k in call.keywords}
    given = [*call.args, None, None, None, None]
    if name == "expect":
        wanted, got, instead = (read_template(named.get(key, arg)) for key, arg in
                                zip(("wanted", "got", "instead"), given[1:4], strict=True))
        return f"expected {wanted}, got {got}; {instead}"
    if name in ("SutureError", "CheckpointError", "EpochNotKeptError") and call.args:
        return read_template(call.args[0])
    return None


def list_messages(file: Path) -> Iterator[str]:
    """Yield the messages of a file in order."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        message = word_call(node) if isinstance(node, ast.Call) else None
        if message is not None and message != "{}":
            yield " ".join(message.split())


def list_words(file: Path) -> Iterator[str]:
    """Yield the words of the options that a file defines."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Doc":
            yield " ".join(read_template(node.args[0]).split())


def find_faults(message: str) -> list[str]:
    """Return what is wrong with the words of a message."""
    count = len(re.sub(r"\([^)]*\)", "", message).split())
    return ([f"{count} words"] if count > MOST_WORDS else []) + [r for r in RIDDLES if r in message]


def main() -> int:
    """Compare or write the list."""
    lines, faults = [], []
    for file in sorted(SOURCE.rglob("*.py")):
        messages, words = list(list_messages(file)), list(list_words(file))
        name = file.relative_to(SOURCE).as_posix()
        lines += [f"[{name}]", *messages, *(f"option: {w}" for w in words), ""] if messages or words else []
        faults += [f"{name}: {', '.join(found)}: {m}" for m in messages if (found := find_faults(m))]
    text = "\n".join(lines)
    if "--write" in sys.argv:
        KEPT.write_text(text, encoding="utf-8")
    kept = KEPT.read_text(encoding="utf-8") if KEPT.exists() else ""
    changed = difflib.unified_diff(kept.splitlines(), text.splitlines(), "kept", "now", lineterm="", n=0)
    wrong = [*changed, *faults]
    sys.stdout.writelines(f"{line}\n" for line in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
