"""The command line: parse, call one public function, print."""

from suture.cli.entry_point import main as main
