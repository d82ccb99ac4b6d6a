"""Does suture work in a real notebook? Runs one in a kernel of its own, and looks at what its cells show.

    make test-notebook        # an environment of its own with nbclient and ipykernel

Exits with 1 if a cell shows no progress, prints to stderr, or a result is not shown with its finding first.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import nbformat
from nbclient import NotebookClient

CELLS = {
    "training": "import suture\nfrom dataclasses import replace\nfrom suture import zoo\n"
                "train, test = zoo.digits('train'), zoo.digits('test')\n"
                "recipe = replace(zoo.RECIPES['digits'], epochs=2)\n"
                "network, report = zoo.train_network('resnet_digits', 0, recipe)",
    "comparison": "result = suture.compare(network, None, train, test, methods=['dm'])\nresult",
    "findings": "result.findings()",
    "verdict": "result.verdict()",
    "silent": "suture.compare(network, None, train, test, methods=[], progress=False).save('result')\n"
              "suture.load('result')",
    "study": "how = {'methods': [], 'ood': None}\n"
             "suture.study({'a': 'zoo:resnet_digits', 'b': network}, train, test, folder='study', **how)",
    "workers": "specs = dict.fromkeys('ab', 'zoo:resnet_digits')\n"
               "print(suture.study(specs, train, test, folder='workers', engine='processes:2', **how))",
    "page": "suture.report([result, suture.load('result')], 'report.html')",
}
SHOWS = {"training", "comparison", "study", "workers"}
"""Cells that show progress."""
BOLD = {"comparison", "findings", "verdict", "silent", "study"}
"""Cells whose result is shown with the finding in bold."""


class Client(NotebookClient):
    """Notes what the bars of each cell say while it runs."""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            told.setdefault(cell_index, []).append(msg["content"]["data"].get("text/plain", ""))
        return super().process_message(msg, cell, cell_index)


told: dict[int, list[str]] = {}


def check(number: int, name: str, outputs: list[Any]) -> list[str]:
    """Return what is wrong with the outputs of a cell."""
    found = [f"prints to stderr: {o.text[:200]}" for o in outputs if o.get("name") == "stderr"]
    seen = told.get(number, [])
    if (name in SHOWS) != bool(seen):
        found.append(f"progress: {seen[:3] or 'none'}")
    if seen and (seen[0] != "setting up" or seen[-1] != "" or not any(" of " in text for text in seen)):
        found.append(f"progress begins, counts or ends otherwise: {seen[:1]} ... {seen[-2:]}")
    shown = [o.data.get("text/html", "") for o in outputs if o.output_type == "execute_result"]
    if name in BOLD and not (shown and "<b>" in shown[0] and len(shown[0]) < 60_000):
        found.append("no result with its finding in bold")
    return found


def main() -> int:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    with tempfile.TemporaryDirectory() as folder:
        Client(made, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    wrong = 0
    for number, (name, cell) in enumerate(zip(CELLS, made.cells, strict=True)):
        found = check(number, name, cell.outputs)
        wrong += bool(found)
        drawn = len(told.get(number, []))
        sys.stdout.write(f"{name}: {'; '.join(found) or 'as it should be'} ({drawn} drawings)\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
