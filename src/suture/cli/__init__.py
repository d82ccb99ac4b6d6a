"""The command line: parse arguments, call one public function, print."""

from suture.cli.entry_point import main as main
