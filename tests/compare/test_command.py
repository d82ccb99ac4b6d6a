"""The command that a result names: a shell that reads it runs the same again."""

from __future__ import annotations

import shlex
import sys

import pytest

from suture.compare.result import describe_command


@pytest.mark.parametrize(("arguments", "found"), [
    (["/opt/my env/bin/suture", "compare", "a.pth", "--out", "my out"],
     ["suture", "compare", "a.pth", "--out", "my out"]),
    (["my script.py", "--x=$HOME; ls", "it's"], ["python", "my script.py", "--x=$HOME; ls", "it's"]),
    (["/usr/bin/tool", "*"], ["/usr/bin/tool", "*"])])
def test_a_shell_reads_the_arguments_again(monkeypatch, arguments, found):
    monkeypatch.setattr(sys, "argv", arguments)
    assert shlex.split(describe_command()) == found


@pytest.mark.parametrize("arguments", [[], [""], ["-c"], ["/x/ipykernel_launcher.py", "-f", "kernel-1.json"]])
def test_a_call_in_python_has_no_command(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", arguments)
    assert describe_command() == ""
