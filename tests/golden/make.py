"""Make the golden results, or compare with them.

    python tests/golden/make.py                     write everything anew, where numbers are meant to change
    python tests/golden/make.py --check             compare, and print what differs
    python tests/golden/make.py --check --only every_index --source ../other/src
    python tests/golden/make.py --exact ../other/src   are both sources equal bit for bit, on this machine?
    python tests/golden/make.py --weights           train the networks anew, which changes every number

The cases run in one process whose kernels are pinned to what every x86-64 processor has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder, whose modules are those of a package

from tests.golden.differences import FLOAT32, Differences  # noqa: E402

PINNED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
}
"""Kernels that every x86-64 processor has, on one thread."""
PLAIN = {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}
INTERFACE = "interface"


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def run(folder: Path, names: list[str] | None = None, source: str | None = None, pinned: bool = True) -> None:
    """Run cases in a process of their own.

    Args:
        folder: where results go, each into a folder of its name.
        names: which cases. Default: all that are stored, and the interface.
        source: folder of the package `suture`. Default: the one that this process would import.
        pinned: with the kernels of `PINNED`.

    Raises:
        RuntimeError: a case fails.
    """
    environment = os.environ | PLAIN | (PINNED if pinned else {"OMP_NUM_THREADS": "1"})
    if source is not None:
        environment["PYTHONPATH"] = str(Path(source).resolve())
    command = [
        sys.executable,
        str(HERE / "make.py"),
        "--into",
        str(folder),
        *(f"--only={n}" for n in names or ()),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stdout)
    if done.returncode:
        raise RuntimeError(f"the golden cases fail:\n{done.stderr[-6000:]}")


def run_here(folder: Path, names: list[str]) -> None:
    """Run cases in this process."""
    import torch

    import suture
    from tests.golden import cases, interface

    say(f"suture is {suture.__file__}")
    torch.set_num_threads(1)
    known = {**cases.CASES, INTERFACE: interface.write}
    for name in names or [n for n in known if n not in cases.UNSTORED]:
        start = time.perf_counter()
        (folder / name).mkdir(parents=True)
        known[name](folder / name)
        say(f"{name}: {time.perf_counter() - start:.1f} s")


def differences(name: str, expected: Path, found: Path, exact: bool = False) -> Differences:
    """Compare the results of one case.

    Args:
        name: of the case.
        expected, found: folders that hold a folder of this name.
        exact: bit for bit.
    """
    from tests.golden.cases import ALLOWED

    allowed = 0.0 if exact else ALLOWED.get(name, FLOAT32)
    return Differences(allowed=allowed).folders(expected / name, found / name)


def report(expected: Path, found: Path, exact: bool = False, most: int = 8) -> int:
    """Print what differs in each case; returns how many cases do."""
    bad = 0
    for name in sorted(p.name for p in found.iterdir()):
        all_of = differences(name, expected, found, exact)
        at = f" ({all_of.where})" if all_of.largest else ""
        say(f"{name}: {len(all_of.problems)} problems, largest difference {all_of.largest:.1e}{at}")
        for problem in all_of.problems[:most]:
            say(f"    {problem}")
        bad += bool(all_of.problems)
    return bad


def exactly(other: str, source: str | None, names: list[str]) -> int:
    """Run every case in two sources, also those that are not stored; print whether all bits are equal."""
    from tests.golden.cases import CASES

    with TemporaryDirectory() as scratch:
        here, there = Path(scratch) / "here", Path(scratch) / "there"
        for folder, which in ((here, source), (there, other)):
            run(folder, names or [*CASES], which)
        bad = report(here, there, exact=True)
    say("equal bit for bit" if not bad else f"{bad} cases differ")
    return bad


def stored(names: list[str], source: str | None) -> None:
    """Write the golden results."""
    with TemporaryDirectory() as scratch:
        run(Path(scratch), names, source)
        for folder in Path(scratch).iterdir():
            shutil.rmtree(RESULTS / folder.name, ignore_errors=True)
            shutil.copytree(folder, RESULTS / folder.name)


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with what is stored")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this case; may be repeated"
    )
    parser.add_argument(
        "--source", metavar="DIR", help="folder of the package suture; default: the installed one"
    )
    parser.add_argument(
        "--exact", metavar="DIR", help="compare two sources bit for bit: --source and this one"
    )
    parser.add_argument("--unpinned", action="store_true", help="with the kernels of this processor")
    parser.add_argument(
        "--weights", action="store_true", help="train networks anew; --only NAME for one of them"
    )
    parser.add_argument("--into", metavar="DIR", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        run_here(Path(given.into), given.only)
    elif given.weights:
        from tests.golden.training import write_weights

        write_weights(given.only)
    elif given.exact:
        return int(exactly(given.exact, given.source, given.only) > 0)
    elif given.check:
        with TemporaryDirectory() as scratch:
            run(Path(scratch), given.only, given.source, not given.unpinned)
            return int(report(RESULTS, Path(scratch)) > 0)
    else:
        stored(given.only, given.source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
