"""The shelf: what is put comes back, under the key it was put under, or there is an error that names the
file."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from suture._base import hash_parts
from suture._base.errors import SutureError
from suture.ood.cache import DetectorCache

KEY, OTHER = "0123456789abcdef", "fedcba9876543210"
ABOUT = {"site": "block1", "recipe": json.dumps({"epochs": 3})}


def tensors(fill: float = 1.0) -> dict[str, Tensor]:
    shared = torch.arange(6.0).reshape(2, 3)
    return {"a": torch.full((50, 7), fill), "turned": shared.T, "shared": shared, "again": shared,
            "count": torch.tensor(3), "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
            "none": torch.zeros(0, 2)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype
                                              for k in one)


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    shelf = DetectorCache(tmp_path / "new" / "folder")
    assert shelf.get(KEY) is None
    assert shelf.read_about(KEY) is None
    shelf.put(KEY, tensors(), ABOUT)
    found = shelf.get(KEY)
    assert found is not None
    assert same(found, tensors())
    assert shelf.read_about(KEY) == ABOUT
    assert shelf.get(OTHER) is None
    assert [p.name for p in shelf.folder.iterdir()] == [f"{KEY}.safetensors"]


def test_state_dict_with_batch_norm_comes_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network(torch.rand(4, 1, 5, 5))
    DetectorCache(tmp_path).put(KEY, network.state_dict(), {})
    found = DetectorCache(str(tmp_path)).get(KEY)
    assert found is not None
    assert same(found, dict(network.state_dict()))


def test_put_again_replaces(tmp_path: Path) -> None:
    shelf = DetectorCache(tmp_path)
    shelf.put(KEY, tensors(1), ABOUT)
    shelf.put(KEY, tensors(2), {})
    found = shelf.get(KEY)
    assert found is not None
    assert same(found, tensors(2))
    assert shelf.read_about(KEY) == {}


def test_what_was_got_does_not_change_the_file(tmp_path: Path) -> None:
    shelf = DetectorCache(tmp_path)
    shelf.put(KEY, tensors(), ABOUT)
    found = shelf.get(KEY)
    assert found is not None
    found["a"].zero_()
    again = shelf.get(KEY)
    assert again is not None
    assert same(again, tensors())


@pytest.mark.parametrize("key", ["", "short", "../../etc/passwd", KEY.upper(), KEY + "0", KEY + "\n"])
def test_a_key_is_16_hex_digits(tmp_path: Path, key: str) -> None:
    for act in (lambda: DetectorCache(tmp_path).get(key), lambda: DetectorCache(tmp_path).put(key, {}, {})):
        with pytest.raises(SutureError, match="expected a key of 16 hex digits"):
            act()
    assert not list(tmp_path.iterdir())


def test_a_renamed_file_is_refused_by_name(tmp_path: Path) -> None:
    shelf = DetectorCache(tmp_path)
    shelf.put(KEY, tensors(), ABOUT)
    shelf.locate(KEY).rename(shelf.locate(OTHER))
    with pytest.raises(SutureError, match=f"expected the key '{OTHER}'.*{OTHER}.safetensors.*got '{KEY}'"):
        shelf.get(OTHER)
    assert shelf.get(KEY) is None


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


DAMAGES = {
    "cut off": lambda d: d[:-5],
    "only the length": lambda d: d[:8],
    "empty": lambda d: b"",
    "no safetensors": lambda d: b"hello" * 9,
    "longer": lambda d: d + b"x",
    "last bit": lambda d: flipped(d, len(d) - 1),
    "what it is about": lambda d: d.replace(b"block1", b"block2"),
    "name of a tensor": lambda d: d.replace(b'"shared"', b'"sharod"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    shelf = DetectorCache(tmp_path)
    shelf.put(KEY, {k: v for k, v in tensors().items() if k != "none"}, ABOUT)
    data = shelf.locate(KEY).read_bytes()
    changed = DAMAGES[damage](data)
    assert changed != data
    shelf.locate(KEY).write_bytes(changed)
    with pytest.raises(SutureError,
                       match=f"{re.escape(str(shelf.locate(KEY)))}' is damaged.*compute it again") as error:
        shelf.get(KEY)
    assert "\n" not in str(error.value)


def test_a_safetensors_file_of_others_is_refused(tmp_path: Path) -> None:
    shelf = DetectorCache(tmp_path)
    shelf.locate(KEY).write_bytes(safetensors.save({"a": torch.ones(2)}))
    with pytest.raises(SutureError, match=f"expected a file that suture wrote, got .*{KEY}"):
        shelf.get(KEY)


def test_a_place_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SutureError, match="cannot write"):
        DetectorCache(tmp_path / "file").put(KEY, tensors(), ABOUT)
    DetectorCache(tmp_path).locate(KEY).mkdir()
    with pytest.raises(SutureError, match="cannot read"):
        DetectorCache(tmp_path).get(KEY)


def _put_often(folder: Path, fill: float, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for _ in range(20):
        DetectorCache(folder).put(KEY, tensors(fill), {"fill": str(fill)})


def test_two_processes_put_the_same_key_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    writers = [context.Process(target=_put_often, args=(tmp_path, fill, start)) for fill in (1.0, 2.0)]
    for w in writers:
        w.start()
    start.wait()
    shelf, seen = DetectorCache(tmp_path), 0
    while any(w.is_alive() for w in writers):
        found = shelf.get(KEY)
        if found is not None:
            assert same(found, tensors(float(found["a"][0, 0])))
            seen += 1
    for w in writers:
        w.join()
        assert w.exitcode == 0
    assert seen
    about = shelf.read_about(KEY)
    assert about is not None
    assert about["fill"] in ("1.0", "2.0")
    assert [p.name for p in tmp_path.iterdir()] == [f"{KEY}.safetensors"]


# -- keys ----------------------------------------------------------------------------------------------------

PARTS = {"network": "abc", "site": "layer1.0", "shape": "map 16x8x8", "recipe": {"lr": 1e-3, "epochs": 3},
         "data": "d1", "auxiliary": "a1", "classes": 10}


def test_a_key_depends_on_what_the_parts_say_and_not_on_their_order() -> None:
    key = hash_parts(PARTS)
    assert re.fullmatch("[0-9a-f]{16}", key)
    turned = dict(reversed(PARTS.items())) | {"recipe": {"epochs": 3, "lr": 1e-3}}
    assert hash_parts(turned) == key
    assert hash_parts({"sites": ("a", "b")}) == hash_parts({"sites": ["a", "b"]})


def test_a_key_is_the_same_in_years() -> None:
    text = r'{"a":"\u00e9","b":[1,2.5,null,true]}'
    assert hash_parts({"b": [1, 2.5, None, True], "a": "é"}) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert hash_parts({"b": [1, 2.5, None, True], "a": "é"}) == "0b8cc543e984d4d7"


@pytest.mark.parametrize("part", [*PARTS, "new", "recipe.lr"])
def test_a_key_changes_with_each_part(part: str) -> None:
    changed = PARTS | ({"recipe": {"lr": 2e-3, "epochs": 3}} if part == "recipe.lr" else {part: "other"})
    assert hash_parts(changed) != hash_parts(PARTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, torch.ones(2), {(1, 2): 3}])
def test_a_part_that_json_does_not_know_is_refused(value: object) -> None:
    with pytest.raises(SutureError, match="expected the parts of a key as words"):
        hash_parts({"part": value})
