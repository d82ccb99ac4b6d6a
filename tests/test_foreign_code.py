"""Code of the user that fails is one line that says whose it was; names break neither a line nor a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import SutureError
from suture._base.foreign_code import run_foreign
from suture.cli.console import print_verdict
from suture.ood import Detector
from suture.results import write_report
from tests.support.comparisons import one_cell
from tests.support.tiny import seeded

X, Y = torch.rand(16, 4), torch.arange(16) % 3
EVIL = ("=cmd|' /C calc'!A0", "+1\x1b[31mred", "-2\u202e<script>", "@SUM(1)\nnext", "\ttab", "$x^$ [bold]")


class Late(nn.Module):
    """Fails on batches of 6 examples."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.a, self.b, self.c, self.error = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3), error

    def forward(self, x: Tensor) -> Any:
        if len(x) == 6:
            raise self.error
        return self.c(self.b(self.a(x)))


class Fails(Detector):
    """Fails when it scores."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def score(self, seen: Any) -> Tensor:
        raise self.error


class Stream:
    """Fails after one batch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        yield X, Y
        raise self.error


class FailsToGather(Fails):
    """A detector whose statistics fail when they are made, or when they get a batch."""

    def __init__(self, error: BaseException, late: bool) -> None:
        super().__init__(error)
        self.late = late

    def make_statistics(self, seed: int) -> Any:
        if self.late:
            return self
        raise self.error

    def update(self, *given: Any) -> None:
        raise self.error


def failing(error: BaseException) -> Callable[..., Any]:
    def function(*given: Any) -> Any:
        raise error

    return function


def network() -> nn.Module:
    return seeded(lambda: Late(ValueError("never on 16 examples"))).eval()


CASES: dict[str, tuple[str, Callable[[BaseException], dict[str, Any]]]] = {
    "forward": ("the network Late", lambda e: {"source": Late(e), "data": [(X, Y), (X[:6], Y[:6])]}),
    "loader": ("of data fails", lambda e: {"data": Stream(e)}),
    "test loader": ("of test data fails", lambda e: {"test": Stream(e)}),
    "preprocessing": ("the preprocessing function", lambda e: {"data": suture.Prepared((X, Y), failing(e))}),
    "sites": ("the function given as sites", lambda e: {"sites": failing(e)}),
    "progress": ("the function given as progress", lambda e: {"progress": failing(e)}),
    "on_stage": ("the function given as on_stage", lambda e: {"on_stage": failing(e)}),
    "detector": ("the detector Fails", lambda e: {"ood": suture.OOD((), own={"mine": Fails(e)})}),
    "statistics": ("the detector FailsToGather",
                   lambda e: {"ood": suture.OOD((), own={"mine": FailsToGather(e, late=False)})}),
    "statistics of a batch": ("the detector FailsToGather",
                              lambda e: {"ood": suture.OOD((), own={"mine": FailsToGather(e, late=True)})}),
    "function": ("the detector 'mine' fails", lambda e: {"ood": suture.OOD((), own={"mine": failing(e)})}),
}


def compare(**given: Any) -> suture.Comparison:
    return suture.compare(**{"source": network(), "data": (X, Y), "sites": ["a", "b"], "methods": ["dm"],
                             "indices": ["cka"], "ood": None, **given})


@pytest.mark.parametrize("error", [ValueError("one\ntwo\x1b[31m"), SystemExit(3)], ids=["error", "exit"])
@pytest.mark.parametrize("case", CASES)
def test_what_a_users_code_raises_is_one_line_with_its_owner(case: str, error: BaseException) -> None:
    owner, make = CASES[case]
    with pytest.raises(SutureError) as found:
        compare(**make(type(error)(*error.args)))  # a new one: an error keeps its note
    assert owner in str(found.value)
    assert type(error).__name__ in str(found.value)
    assert str(found.value).isprintable()


def test_an_interruption_and_errors_without_an_owner_pass() -> None:
    with pytest.raises(KeyboardInterrupt):
        compare(progress=failing(KeyboardInterrupt()))
    with pytest.raises(KeyError), run_foreign("the data"):
        raise KeyError("in a block without an entry point")


@pytest.mark.parametrize("data", [
    DataLoader(TensorDataset(X, Y)), TensorDataset(X, Y), (X, Y), X, (X.numpy(), Y.numpy()), [(X, Y), (X, Y)],
    [{"x": X, "labels": Y}], suture.Paired([X], [X]), suture.Prepared((X, Y), None), "data/train",
    Path("a.npz"),
], ids=lambda data: type(data).__name__)
def test_data_in_place_of_a_network_are_recognised(data: Any) -> None:
    made = network()
    for call in (lambda: suture.compare(made, data), lambda: suture.dry_run(made, data, data),
                 lambda: suture.compare(data, made), lambda: suture.stitch(data, "a", made, "b", X)):
        with pytest.raises(SutureError, match=r"torch.nn.Module, got data \(.*write data="):
            call()


@pytest.mark.parametrize(("given", "words"), [
    (nn.Linear, r"the class Linear; make one: Linear\("),
    (network, r"the function network; call it: network\(\)"),
    (nn.Linear(2, 2).state_dict(), "a state dict; .*load_state_dict"),
    ("model.pt", "weights.*zoo.load_weights"), (5, "got 5"),
    (Path("a/model.safetensors"), "zoo.load_weights"), ("resnet18", r"suture.zoo.build\('resnet18'\)"),
    ("zoo:resnet20", r"zoo.build\('resnet20'\)"), ("torchvision:resnet18", "only the command line"),
    (torch.optim.SGD([nn.Parameter(X)], 0.1), "an optimizer"), ([nn.Linear(2, 2)], "a list of networks"),
])
def test_what_is_no_network_says_what_to_write(given: Any, words: str) -> None:
    for call in (lambda: suture.compare(network(), given, data=(X, Y)), lambda: suture.capture(given, X)):
        with pytest.raises(SutureError, match=words):
            call()


@pytest.mark.parametrize(("data", "words"), [
    (network(), "write the networks first"), ("data", "open_source"),
    (TensorDataset, "make one"), (b"x", "pass a DataLoader"),
])
def test_what_are_no_data_say_what_to_write(data: Any, words: str) -> None:
    with pytest.raises(SutureError, match=f"as data, got .*{words}"):
        compare(data=data)


def test_options_that_can_be_read_once_keep_their_parts() -> None:
    found = compare(sites=(s for s in ("a", "b")), indices=(i for i in ("cka", "r2")), methods=iter(["dm"]))
    assert (found.sources, found.targets) == (("a", "b"), ("a", "b"))
    assert {"cka", "r2", "dm.accuracy"} <= set(found.measures)


def test_names_are_neutralised_where_they_are_written(tmp_path: Path,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    table = one_cell().table.iloc[[0] * len(EVIL)].assign(target=EVIL)
    made = one_cell(source=EVIL[0], target=EVIL[1], targets=EVIL, table=table, meta={"notes": list(EVIL)})
    made.save(tmp_path / "a")
    rows = list(csv.reader(io.StringIO((tmp_path / "a" / "table.csv").read_text(), newline="")))[1:]
    assert [row[1] for row in rows] == [*(f"'{name}" for name in EVIL[:5]), EVIL[5]]
    assert [row[3] for row in rows] == ["0.5"] * len(EVIL)
    assert suture.load(tmp_path / "a").equals(made)
    page = write_report([made], tmp_path / "a.html").read_text()
    print_verdict(made)
    for text in (page, capsys.readouterr().out, repr(made)):
        assert not {"\x1b", "\u202e"} & set(text)
    assert page.count("<script>") == 1  # the page's own
