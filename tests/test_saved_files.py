"""Every file that suture writes and reads back: each of its bytes counts."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import suture
from suture import StitchedNetwork, SutureError, zoo
from suture._base import SutureWarning, hash_tensors
from suture.ood import DETECTORS, Detector, NativeSite
from suture.ood.detector_store import _load_state, fit_with_store
from tests.ood.test_own import Kept, fit
from tests.results.test_saving import VERSION_1
from tests.support.comparisons import one_cell
from tests.support.tiny import network, other, stitched


@dataclass(frozen=True)
class Written:
    """A file, and the call that reads it."""

    path: Path
    read: Callable[[], Any]


def write_comparison(folder: Path) -> Written:
    one_cell(arrays={"target.correct": torch.tensor([True, False]).numpy()}).save(folder)
    return Written(folder / "comparison.safetensors", lambda: suture.load(folder))


def write_moments(folder: Path) -> Written:
    x = torch.rand(12, 1, generator=torch.Generator().manual_seed(0))
    path = folder / "moments.safetensors"
    suture.compare_arrays(x, x.square(), ["cka"], save=path)
    return Written(path, lambda: suture.merged_moments([path], ["cka"]))


def write_detector(folder: Path) -> Written:
    fit(Kept(), store=folder)
    path = next(folder.iterdir())
    return Written(path, lambda: _load_state(path))


@lru_cache
def fit_layer() -> StitchedNetwork:
    return stitched()


@lru_cache
def fit_energy() -> tuple[Detector, NativeSite]:
    return fit(DETECTORS["energy"])


def write_layer(folder: Path) -> Written:
    path = folder / "layer.safetensors"
    fit_layer().save(path)
    source, target = network(), other()
    return Written(path, lambda: suture.load_stitched(path, source, target))


def write_weights(folder: Path) -> Written:
    path = folder / "weights.safetensors"
    zoo.save_weights(nn.Linear(2, 2), path, {"seed": "0", "accuracy": "0.9"})
    return Written(path, lambda: zoo.load_weights(nn.Linear(2, 2), path))


WRITERS = {"comparison": write_comparison, "moments": write_moments, "detector": write_detector,
           "layer": write_layer, "weights": write_weights}


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    made = WRITERS[request.param](tmp_path_factory.mktemp(request.param))
    made.read()
    return made


def refuse(written: Written, data: bytes | bytearray, whole: bytes) -> None:
    """The file with other contents must be refused in one line."""
    written.path.write_bytes(data)
    try:
        written.read()
    except SutureError as error:  # thousands of times, so without the traceback of pytest.raises
        message = str(error)
    else:
        message = pytest.fail(f"{written.path.name} was read")
    finally:
        written.path.write_bytes(whole)
    assert "\n" not in message


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_each_byte_of_a_file_counts(written: Written, step: int) -> None:
    whole, draw = written.path.read_bytes(), random.Random(0)
    for place in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[place] ^= draw.randrange(1, 256)
        refuse(written, changed, whole)
    written.read()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_file_is_read(written: Written, data: st.DataObject) -> None:
    whole = written.path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    size, new = data.draw(st.integers(0, 4)), data.draw(st.binary(max_size=4))
    changed = whole[:place] + new + whole[place + size:]
    if changed != whole:
        refuse(written, changed, whole)


def test_no_file_can_pose_as_one_of_an_early_version(written: Written) -> None:
    whole = written.path.read_bytes()
    refuse(written, whole.replace(b'/2"', b'/1"'), whole)
    refuse(written, whole.replace(b'"digest"', b'"digesu"'), whole)
    refuse(written, whole.replace(b'"suture.', b'"tuture.'), whole)


def as_early(path: Path, kind: str) -> None:
    """Write a file again with the digest of earlier versions, of kind, description and tensors."""
    with safe_open(path, "pt") as file:
        about = file.metadata()["about"]
    tensors = load_file(path)
    beside = about if kind == "suture.shelf/1" else f"{kind}\0{about}\0"
    digest = hash_tensors(sorted(tensors.items()), beside)
    save_file(tensors, path, {"format": kind, "about": about, "digest": digest})


KINDS = {"comparison": "suture.comparison/2", "moments": "suture.moments/2", "detector": "suture.detector/2",
         "layer": "suture.stitch/2", "weights": "suture.weights/2"}


@pytest.mark.parametrize(("name", "kind"), [*KINDS.items(), ("detector", "suture.shelf/1")])
def test_the_digest_of_earlier_versions_is_checked(tmp_path: Path, name: str, kind: str) -> None:
    written = WRITERS[name](tmp_path)
    as_early(written.path, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written.read()
    whole, draw = written.path.read_bytes(), random.Random(0)
    for place in range(0, len(whole), 11):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        refuse(written, changed, whole)


def test_what_could_not_be_checked_is_said(tmp_path: Path) -> None:
    assert "no digest" in suture.load(VERSION_1).meta["notes"][-1]
    for name, kind in (("moments", "suture.moments/1"), ("layer", "suture.stitch/1")):
        written = WRITERS[name](tmp_path / name)
        with safe_open(written.path, "pt") as file:
            about = file.metadata()["about"]
        save_file(load_file(written.path), written.path, {"format": kind, "about": about})
        with pytest.warns(SutureWarning, match=f"{written.path.name}.* without a digest"):
            written.read()
    plain = tmp_path / "w.safetensors"
    save_file(nn.Linear(2, 2).state_dict(), plain, {"seed": "0", "accuracy": "0.9"})
    with pytest.warns(SutureWarning, match=r"w.safetensors.* without a digest"):
        assert zoo.load_weights(nn.Linear(2, 2), plain)["seed"] == "0"


def test_a_detector_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    _, site = fit(Kept(), store=tmp_path / "mine")
    fit(Kept().copy_with(words={"width": 4}), store=tmp_path / "theirs")
    mine, theirs = (next((tmp_path / name).iterdir()) for name in ("mine", "theirs"))
    assert mine.name != theirs.name
    shutil.copy(theirs, mine)
    assert site.data is not None
    with pytest.raises(SutureError, match="a file of another name"):
        fit_with_store(Kept(), [site], site.data, mine.parent)


ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "complex": lambda t: t.to(torch.complex64), "integer": lambda t: t.round().to(torch.int64),
    "bool": lambda t: t > 0, "cut off": lambda t: t[:1], "NaN": lambda t: t * torch.nan,
    "inf": lambda t: t + torch.inf, "too large": lambda t: t.double() * 1e300 + 1e300}


@pytest.mark.parametrize("odd", ODD)
def test_odd_tensors_of_a_layer_are_refused(odd: str, tmp_path: Path) -> None:
    written = write_layer(tmp_path)
    with safe_open(written.path, "pt") as file:
        about = file.metadata()["about"]
    tensors = load_file(written.path)
    save_file({k: ODD[odd](v) if k == "affine.weight" else v for k, v in tensors.items()}, written.path,
              {"format": "suture.stitch/2", "about": about})
    as_early(written.path, "suture.stitch/2")
    with pytest.raises(SutureError, match=r"affine\.weight"):
        written.read()


def test_half_precision_weights_of_a_layer_load(tmp_path: Path) -> None:
    written = write_layer(tmp_path)
    before = written.read().layer.weight
    with safe_open(written.path, "pt") as file:
        about = file.metadata()["about"]
    save_file({k: v.half() for k, v in load_file(written.path).items()}, written.path, {"about": about})
    as_early(written.path, "suture.stitch/2")
    torch.testing.assert_close(written.read().layer.weight, before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("odd", ODD)
def test_odd_tensors_of_a_trained_detector_are_refused(odd: str) -> None:
    detector, site = fit_energy()
    state = detector.get_state()
    name = next(k for k, v in state.items() if v.ndim > 1)
    with pytest.raises(SutureError, match=rf"block1 does not fit.*{name}"):
        detector.restore(site, {**state, name: ODD[odd](state[name])})
