"""Networks and data by what is written on a command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from suture import SutureError, specs, zoo
from suture.zoo import ImageSet
from tests.support import tiny

CODE = """
import torch
from torch import nn

NOT_A_FUNCTION = 3


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 2))


def pair():
    return build(), lambda raw: torch.ones(len(raw), 6)


def plain_pair():
    return build(), None


def wrong_pair():
    return build(), "uint8"


def splits():
    return (torch.ones(4, 6), torch.zeros(4).long()), (torch.ones(2, 6), torch.zeros(2).long())


def words():
    return "words"


def three():
    return 1, 2, 3


def needs(width):
    return nn.Linear(width, 2)


def fails():
    table = {}
    return table["one\\ntwo"]


def fails_long():
    raise RuntimeError("first line\\nsecond line")


def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory, as a user has one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.delitem(sys.modules, "their_code", raising=False)
    yield "their_code"
    sys.modules.pop("their_code", None)


def test_code_in_the_working_directory(module: str) -> None:
    made = specs.build_network(f"{module}:build").network
    assert made(torch.ones(3, 6)).shape == (3, 2)
    (inputs, labels), (test, _) = specs.load_data(f"{module}:splits")
    assert (inputs.shape, labels.shape, test.shape) == ((4, 6), (4,), (2, 6))


def test_the_digits() -> None:
    train, test = specs.load_data("digits")
    assert (train.name, test.name) == ("digits-train", "digits-test")


def test_zoo_networks_take_seed_channels_and_classes() -> None:
    like = ImageSet(torch.rand(2, 3, 8, 8), torch.tensor([0, 4]), 5, "mine")
    made = specs.build_network("zoo:resnet_digits", like=like, seed=4).network
    assert made.eval()(like.inputs).shape == (2, 5)
    again, else_ = (specs.build_network("zoo:resnet_digits", like=like, seed=s).network for s in (4, 5))
    assert torch.equal(made.conv1.weight, again.conv1.weight)
    assert not torch.equal(made.conv1.weight, else_.conv1.weight)
    plain = specs.build_network("zoo:resnet_digits", like=(like.inputs, like.labels)).network
    assert plain.conv1.in_channels == 1


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_are_loaded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    wanted = tiny.other()
    if suffix == "pt":
        torch.save(wanted.state_dict(), path)
    else:
        zoo.save_weights(wanted, path)
    made = specs.build_network("tests.support.tiny:network", weights=path).network
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), wanted.parameters(), strict=True))
    assert not torch.equal(made.head.weight, tiny.network().head.weight)


@pytest.mark.parametrize(("spec", "words"), [
    ("resnet_digits", "write zoo:resnet_digits"), ("", "like zoo:"), ("zoo:", "like zoo:"),
    ("zoo:resnet_digit", "nearest: resnet_digits"),
    ("nowhere_at_all:build", "cannot import 'nowhere_at_all'"),
    (":build", "cannot import ''"), ("{}:bild", "nearest: build"), ("{}:NOT_A_FUNCTION", "unknown function"),
    ("{}:words", "torch.nn.Module, or a pair of one and its preprocessing, from their_code:words, got str"),
    ("{}:splits", "got tuple"), ("{}:wrong_pair", "second result of their_code:wrong_pair, got str"),
    ("{}:needs", "missing 1 required positional argument: 'width'"),
    ("{}:fails", "KeyError"), ("{}:leaves", "SystemExit: 3"),
    ("{}:fails_long", "RuntimeError: first line (their_code.py, line 46)"),
])
def test_what_is_no_network(spec: str, words: str, module: str) -> None:
    with pytest.raises(SutureError) as error:
        specs.build_network(spec.format(module))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spec", "words"), [
    ("digit", "nearest: digits"), ("cifar10", "module:function"),
    ("{}:words", "pair (train, test) from their_code:words, got str"),
    ("{}:three", "pair (train, test) from their_code:three, got tuple"),
    ("{}:fails", "(their_code.py, line 42)"),
    ("{}:", "unknown function"), ("nowhere_at_all:splits", "cannot import"),
])
def test_what_is_no_data(spec: str, words: str, module: str) -> None:
    with pytest.raises(SutureError) as error:
        specs.load_data(spec.format(module))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("code", "words"), [
    ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"), ("def f(:\n", "SyntaxError"),
    ("x = 1 / 0\n", "ZeroDivisionError: division by zero (broken_code.py, line 1)"),
])
def test_code_that_cannot_be_imported(code: str, words: str, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "broken_code", raising=False)
    (tmp_path / "broken_code.py").write_text(code)
    with pytest.raises(SutureError) as error:
        specs.build_network("broken_code:f")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_networks_of_the_command_line_are_modules() -> None:
    made = specs.build_network("tests.support.tiny:network")
    assert isinstance(made.network, nn.Module)
    assert (made.preprocessing, made.spec, made.notes) == (None, "tests.support.tiny:network", ())


def test_code_may_say_what_its_network_wants(module: str) -> None:
    made = specs.build_network(f"{module}:pair")
    assert made.network(made.preprocessing([1, 2])).shape == (2, 2)
    assert specs.build_network(f"{module}:plain_pair").preprocessing is None
