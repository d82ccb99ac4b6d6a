"""Tensor files: what is saved comes back, or there is an error that names the file."""

from __future__ import annotations

import json
import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from suture._base import SutureError, hash_tensors, load_tensors, save_tensors

KIND = "suture.detector/2"
ABOUT = {"site": "block1", "recipe": json.dumps({"epochs": 3})}


def tensors(fill: float = 1.0) -> dict[str, Tensor]:
    shared = torch.arange(6.0).reshape(2, 3)
    return {"a": torch.full((50, 7), fill), "turned": shared.T, "shared": shared, "again": shared,
            "count": torch.tensor(3), "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
            "none": torch.zeros(0, 2)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) and one[k].dtype == other[k].dtype
                                              for k in one)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "one.safetensors"
    save_tensors(path, KIND, tensors(), ABOUT)
    found = load_tensors(path, "suture.other/1", KIND)
    assert same(found.tensors, tensors())
    assert found.about == ABOUT
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found.tensors["a"].zero_()
    assert same(load_tensors(path, KIND).tensors, tensors())


def test_state_dict_with_batch_norm_comes_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network(torch.rand(4, 1, 5, 5))
    save_tensors(tmp_path / "one", KIND, network.state_dict(), {})
    assert same(load_tensors(tmp_path / "one", KIND).tensors, dict(network.state_dict()))


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_tensors(tmp_path / "one", KIND, tensors(1), ABOUT)
    save_tensors(tmp_path / "one", KIND, tensors(2), {})
    found = load_tensors(tmp_path / "one", KIND)
    assert same(found.tensors, tensors(2))
    assert found.about == {}


def test_a_file_of_the_old_kind_of_detectors_is_read(tmp_path: Path) -> None:
    kept = {name: t.contiguous().clone() for name, t in tensors().items()}
    words = json.dumps(ABOUT, sort_keys=True)
    meta = {"format": "suture.shelf/1", "key": "0123456789abcdef", "about": words,
            "digest": hash_tensors(sorted(kept.items()), words)}
    data = safetensors.save(kept, meta)
    (tmp_path / "one").write_bytes(data)
    assert same(load_tensors(tmp_path / "one", KIND, "suture.shelf/1").tensors, tensors())
    (tmp_path / "one").write_bytes(flipped(data, len(data) - 1))
    with pytest.raises(SutureError, match="damaged"):
        load_tensors(tmp_path / "one", KIND, "suture.shelf/1")


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
    path = tmp_path / "one"
    save_tensors(path, KIND, {k: v for k, v in tensors().items() if k != "none"}, ABOUT)
    data = path.read_bytes()
    changed = DAMAGES[damage](data)
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(SutureError, match=f"{re.escape(str(path))}' is damaged.*compute it again") as error:
        load_tensors(path, KIND)
    assert "\n" not in str(error.value)


def test_a_safetensors_file_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(safetensors.save({"a": torch.ones(2)}))
    with pytest.raises(SutureError, match=f"expected a file of the kind {KIND}, got None in .*one"):
        load_tensors(tmp_path / "one", KIND)


def test_a_place_that_cannot_be_written_or_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SutureError, match="cannot write"):
        save_tensors(tmp_path / "file" / "one", KIND, tensors(), ABOUT)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(SutureError, match="cannot read"):
            load_tensors(path, KIND)


def _save_often(folder: Path, fill: float, start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for _ in range(20):
        save_tensors(folder / "one", KIND, tensors(fill), {"fill": str(fill)})


def test_two_processes_write_the_same_file_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    writers = [context.Process(target=_save_often, args=(tmp_path, fill, start)) for fill in (1.0, 2.0)]
    for w in writers:
        w.start()
    start.wait()
    seen = 0
    while any(w.is_alive() for w in writers):
        if (tmp_path / "one").exists():
            found = load_tensors(tmp_path / "one", KIND)
            assert same(found.tensors, tensors(float(found.about["fill"])))
            seen += 1
    for w in writers:
        w.join()
        assert w.exitcode == 0
    assert seen
    assert [p.name for p in tmp_path.iterdir()] == ["one"]
