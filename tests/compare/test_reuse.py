"""Earlier results: taken over if nothing changed, with a note, and refused by the name of what changed."""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

import suture
from suture import OOD, Paired, Prepared, SutureError, TaskRecipe, sources
from suture.compare import key
from tests.support import tiny

TAKEN = re.compile(r"taken over: moments, dm \(computed \d{4}-\d\d-\d\d \d\d:\d\d\)")
SCALE = 1.0
TABLE = {"shift": [0.0]}


def helper(x: Tensor) -> Tensor:
    return x * SCALE


class Net(tiny.Tiny):
    """A network with a value, a buffer that is not saved, a table and a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.act = 1.0, torch.tanh
        self.register_buffer("offset", torch.zeros(3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = helper(super().forward(x)) * self.factor + self.offset + TABLE["shift"][0]
        return found


def net() -> Any:
    return tiny.seeded(Net)


def compared(network: nn.Module, data: Any, test: Any = None, **options: Any) -> suture.Comparison:
    return suture.compare(network, None, data, test, **{
        "methods": ["dm"], "indices": "cka", "ood": None, "sites": ["block1"], "device": "cpu",
        "batch_size": 8} | options)


def examples(n: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    return tiny.images(n, seed=seed), tiny.labels(n)


@cache
def kept() -> suture.Comparison:
    return compared(net(), examples(), examples(12, 1))


def refused(what: str, *args: Any, previous: suture.Comparison | None = None, **options: Any) -> None:
    with pytest.raises(SutureError, match=re.escape(f"other networks, data or settings ({what}")):
        compared(*args, previous=previous or kept(), **options)


def test_the_same_comparison_is_taken_over_with_a_note_and_by_progress() -> None:
    seen: list[str] = []
    again = compared(net(), examples(), examples(12, 1), previous=kept(),
                     progress=lambda stage, done, total: seen.append(stage))
    assert TAKEN.fullmatch(again.meta["notes"][0])
    assert again.meta["notes"][1:] == kept().meta["notes"]
    assert set(seen) == {"checking the data", "checking the test data", again.meta["notes"][0]}
    assert again.table.equals(kept().table)
    third = compared(net(), examples(), examples(12, 1), previous=again)
    assert [TAKEN.fullmatch(n) is not None for n in third.meta["notes"]].count(True) == 1


def nudge(x: Tensor, where: int) -> Tensor:
    """One element of a tensor moved to the next number."""
    made = x.clone()
    flat = made.view(-1)
    one = flat[where % len(flat)]
    flat[where % len(flat)] = (torch.nextafter(one, torch.tensor(9.0)) if x.is_floating_point()
                               else (one + 1) % 3)
    return made


CODE = ("+ 0", "* 1", "+ torch.zeros(1)")
"""Ends of a forward, of which none changes a number."""


@settings(max_examples=20, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(part=st.sampled_from(["data", "labels", "test data", "test labels", "weights", "buffer", "code",
                             "setting"]), where=st.integers(0, 10**6))
def test_one_changed_element_anywhere_is_refused_by_its_name(part: str, where: int) -> None:
    network, (x, y), (u, v), options = net(), examples(), examples(12, 1), {}
    what = {"data": "data: inputs", "labels": "data: labels", "test data": "test data: inputs",
            "test labels": "test data: labels", "weights": "weights of the source",
            "buffer": "structure or values of the source", "code": "code of the source", "setting": ""}[part]
    if part == "weights":
        state = network.state_dict()
        used = [k for k in state if not k.startswith("unused")]
        state[used[where % len(used)]].copy_(nudge(state[used[where % len(used)]], where))
    elif part == "buffer":
        network.offset.copy_(nudge(network.offset, where))
    elif part == "code":
        place: dict[str, Any] = {"Net": Net, "torch": torch}
        exec(f"class Net(Net):\n    def forward(self, x):\n        return super().forward(x) "
             f"{CODE[where % len(CODE)]}\n", place)
        network.__class__ = place["Net"]
    elif part == "setting":
        name, value = [("seed", where + 1), ("relu", True), ("precision", "float64"), ("indices", "r2"),
                       ("jackknife", 10), ("sample", where + 1), ("examples", 1 + where % 23),
                       ("family", "orthogonal"), ("batch_size", 9 + where), ("task", "none"),
                       ("ood", "mahalanobis"), ("allow_bypass", True),
                       ("alignment", suture.AlignmentRule(prefix="drop")),
                       ("tlm", TaskRecipe(epochs=where + 31))][where % 14]
        options[name] = value
        what = {"tlm": "tlm.epochs", "alignment": "alignment.prefix"}.get(name, name)
    else:
        x, y, u, v = (nudge(t, where) if p == part else t for p, t in zip(
            ("data", "labels", "test data", "test labels"), (x, y, u, v), strict=True))
    refused(what, network, (x, y), (u, v), **options)


def by_value(network: Any) -> None:
    network.factor = 2.0


def by_function(network: Any) -> None:
    network.act = torch.sigmoid


def by_hook(network: Any) -> None:
    network.block1.register_forward_hook(lambda module, inputs, output: output * 1)


def by_method(network: Any) -> None:
    head = network.head
    head.forward = MethodType(lambda self, x: nn.functional.linear(x, self.weight, self.bias), head)


def by_global(network: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{__name__}.SCALE", 1.5)


def by_helper(network: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(f"{__name__}.helper", lambda x: x * 1)


def by_table(network: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(TABLE, "shift", [1.0])


def by_layer(network: Any) -> None:
    network.block2.conv.padding_mode = "circular"


@pytest.mark.parametrize("change", [by_value, by_function, by_hook, by_method, by_global, by_helper, by_table,
                                    by_layer])
def test_the_same_weights_in_other_code_are_another_network(change: Callable[..., None],
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    known, network = kept(), net()
    change(network, monkeypatch) if change.__code__.co_argcount == 2 else change(network)
    with pytest.raises(SutureError, match=r"(code|structure or values) of the source"):
        compared(network, examples(), examples(12, 1), previous=known)


def test_what_only_changes_with_use_is_no_change() -> None:
    network = net().train()
    network(tiny.images())
    network.requires_grad_(False)
    copied = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert compared(copied, examples(), examples(12, 1), previous=kept()).table.equals(kept().table)


def test_outputs_show_what_no_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    known = kept()
    real = torch.relu
    monkeypatch.setattr(torch, "relu", lambda x: real(x) + 1e-3)  # as a changed compiled library
    monkeypatch.setattr(key, "hash_network", lambda network: suture._base.ObjectHash(
        *(known.meta["made_from"]["networks"]["source"][k] for k in ("structure", "code")), {}))
    refused("outputs of the source network", net(), examples(), examples(12, 1))


@pytest.mark.parametrize("name", ["suture", "torch", "python"])
def test_other_versions_compute_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = kept()
    if name == "torch":
        monkeypatch.setattr(torch, "__version__", "9.9")
    elif name == "suture":
        monkeypatch.setattr(key, "_find_own_version", lambda: "9.9")
    else:
        monkeypatch.setattr(key, "get_python_version", lambda: "9.9")
    with pytest.raises(SutureError, match=f"version of {name}: .*, now 9.9"):
        compared(net(), examples(), examples(12, 1), previous=known)


def test_a_result_of_an_older_version_is_refused() -> None:
    meta = {k: v for k, v in kept().meta.items() if k != "made_from"}
    refused("made by an older version of suture", net(), examples(), examples(12, 1),
            previous=dataclasses.replace(kept(), meta=meta))


# -- forms of data -------------------------------------------------------------------------------------------

class Rows(Dataset[Any]):
    """A Dataset that computes its examples."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return self.x[k] * 2, int(self.y[k])


class Stream(IterableDataset[Any]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(self.x, self.y, strict=True))


class Noisy(Rows):
    """A Dataset with augmentation at random."""

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return self.x[k] + torch.rand(()), int(self.y[k])


def twice(raw: Tensor) -> Tensor:
    return raw * 2


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5),
    "dataset": Rows,
    "stream": lambda x, y: DataLoader(Stream(x, y), batch_size=5),
    "batches": lambda x, y: tiny.batches(x, y),
    "prepared": lambda x, y: Prepared((x, y), twice),
    "prepared loader": lambda x, y: Prepared(DataLoader(TensorDataset(x, y), batch_size=5), twice),
    "paired": lambda x, y: Paired(tiny.batches(x, y), tiny.batches(x, y)),
    "shuffled": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_change_beyond_the_first_batch_is_seen_in_every_form_of_data(form: str) -> None:
    x, y = examples()
    make, test = FORMS[form], examples(12, 1)
    first = compared(net(), make(x, y), test)
    assert not any("every pass" in note for note in first.meta["notes"])
    again = compared(net(), make(x, y), test, previous=first)
    assert TAKEN.fullmatch(again.meta["notes"][0])
    changed = x.clone()
    changed[20, 1, 3, 3] += 1e-3
    refused("data: inputs", net(), make(changed, y), test, previous=first)
    refused("data: ", net(), make(x, y.roll(1)), test, previous=first)
    refused("data: 23 examples, not 24" if form not in ("batches", "paired") else "data: ", net(),
            make(x[:23], y[:23]) if form not in ("batches", "paired") else make(x.flip(0), y.flip(0)), test,
            previous=first)


def test_examples_in_another_order_are_other_data() -> None:
    x, y = examples()
    refused("data: the same examples in another order", net(), (x.flip(0), y.flip(0)), examples(12, 1))


def test_batches_of_other_sizes_are_other_data() -> None:
    x, y = examples()
    first = compared(net(), FORMS["loader"](x, y))
    other = DataLoader(TensorDataset(x, y), batch_size=6)
    refused("data: sizes of the batches", net(), other, previous=first)


def test_random_data_are_computed_anew_and_both_results_say_so() -> None:
    x, y = examples()
    make = partial(DataLoader, Noisy(x, y), batch_size=8, shuffle=True)
    first = compared(net(), make(), examples(12, 1))
    assert any("the data come otherwise in every pass" in note for note in first.meta["notes"])
    again = compared(net(), make(), examples(12, 1), previous=first)
    assert again.meta["notes"][0].startswith("not taken over: moments, dm: the data come otherwise in every")
    assert not again.table.equals(first.table)


@pytest.mark.parametrize("how", [{"shuffle": True, "drop_last": True},
                                 {"sampler": RandomSampler(range(24), replacement=True)}])
def test_a_loader_that_draws_another_set_says_so(how: dict[str, Any]) -> None:
    made = compared(net(), DataLoader(TensorDataset(*examples()), batch_size=7, **how), examples(12, 1))
    assert any("the data come otherwise in every pass" in note for note in made.meta["notes"])


class Odd:
    """A value that cannot be read."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return None, None

    def __deepcopy__(self, memo: Any) -> Odd:
        return self


def test_a_value_that_cannot_be_read_stops_nothing() -> None:
    network = net()
    network.odd = Odd()
    first = compared(network, examples())
    assert TAKEN.fullmatch(compared(network, examples(), previous=first).meta["notes"][0])


def thrice(raw: Tensor) -> Tensor:
    return raw * 2 * SCALE


class Preparing:
    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, raw: Tensor) -> Tensor:
        return raw * self.by


@pytest.mark.parametrize(("one", "other"), [
    (twice, thrice), (Preparing(2), Preparing(3)), (partial(torch.mul, other=2), partial(torch.mul, other=3)),
    (suture.ImagePreprocessing(), suture.ImagePreprocessing(std=(0.5,)))])
def test_another_preprocessing_is_another_comparison(one: Any, other: Any) -> None:
    data = (tiny.images() / 2, tiny.labels())
    first = compared(net(), Prepared(data, one))
    refused("preprocessing of the data", net(), Prepared(data, other), previous=first)


def test_only_the_examples_that_were_used_count() -> None:
    x, y = examples()
    first = compared(net(), (x, y), examples(12, 1), examples=10)
    changed = torch.cat([x[:20], x[20:] + 1])
    compared(net(), (changed, y), examples(12, 1), examples=10, previous=first)
    changed = torch.cat([x[:9], x[9:] + 1])
    refused("data: inputs", net(), (changed, y), examples(12, 1), examples=10, previous=first)


def test_task_loss_matching_uses_all_examples() -> None:
    x, y = examples()
    options: dict[str, Any] = {"methods": ["tlm"], "indices": (), "tlm": tiny.RECIPE, "examples": 10}
    first = compared(net(), (x, y), **options)
    refused("data: inputs", net(), (torch.cat([x[:20], x[20:] + 1]), y), previous=first, **options)


@pytest.mark.parametrize("use", ["auxiliary", "unseen"])
def test_auxiliary_and_unseen_data_count_to_their_last_example(use: str) -> None:
    outside = {"auxiliary": tiny.images(30, seed=5), "unseen": tiny.images(30, seed=6)}
    first = compared(net(), examples(), ood=OOD(**outside))
    changed = outside | {use: nudge(outside[use], 30 * 128 - 1)}
    refused(f"{use} data: inputs", net(), examples(), ood=OOD(**changed), previous=first)
    compared(net(), examples(), ood=OOD(**outside), previous=first)


def test_own_detectors_families_and_functions_count_with_what_they_use() -> None:
    def make(k: float) -> Callable[[Tensor], Tensor]:
        return lambda x: -k * x.flatten(1).norm(dim=1)

    first = compared(net(), examples(), ood=OOD((), own={"norm": make(1)}))
    compared(net(), examples(), ood=OOD((), own={"norm": make(1)}), previous=first)
    refused("ood.own.norm", net(), examples(), ood=OOD((), own={"norm": make(2)}), previous=first)


def test_an_index_counts_with_the_functions_that_it_calls() -> None:
    def index(text: str) -> Any:
        place: dict[str, Any] = {}
        exec(f"def power():\n    return {text}\n\ndef mine(x, y):\n    return len(x) ** power()\n", place)
        return suture.indices.own(place["mine"], "mine")

    first = compared(net(), examples(), indices=index("2"))
    refused("indices", net(), examples(), indices=index("3"), previous=first)


def test_files_are_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.random((24, 2, 8, 8), np.float32), "y": np.arange(24) % 3}

    def write(**changed: Any) -> Any:
        np.savez(tmp_path / "train.npz", **(arrays | changed))
        return sources.open_source(tmp_path / "train.npz", split="train")

    first = compared(net(), write(), examples(12, 1))
    compared(net(), write(), examples(12, 1), previous=first)
    other = arrays["x"].copy()
    other[23, 1, 7, 7] += 1
    refused("data: ", net(), write(x=other), examples(12, 1), previous=first)


def test_test_data_that_change_between_two_stages_are_refused() -> None:
    x, y = examples(12, 1)

    class Late(Rows):
        reads = 0

        def __getitem__(self, k: int) -> tuple[Tensor, int]:
            type(self).reads += 1
            return self.x[k] + 1e-6 * (k == 11) * (self.reads > 30), int(self.y[k])

    with pytest.raises(SutureError, match="another order than in the pass before"):
        compared(net(), examples(), DataLoader(Late(x, y), batch_size=6), methods=["dm", "tlm"],
                 tlm=tiny.RECIPE)


# -- stitched networks ---------------------------------------------------------------------------------------

def test_a_layer_is_not_loaded_into_changed_code(tmp_path: Path) -> None:
    file = tmp_path / "layer.safetensors"
    suture.stitch(net(), "block1", net(), "block2", examples(), device="cpu").save(file)
    suture.load_stitched(file, net(), net())
    for change, what in ((by_value, "structure or values"), (by_hook, "(code|structure or values)")):
        changed = net()
        change(changed)
        with pytest.raises(SutureError, match=f"the target network that .* other {what}"):
            suture.load_stitched(file, net(), changed)


def test_a_layer_is_not_loaded_into_networks_with_other_outputs(tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "layer.safetensors"
    suture.stitch(net(), "block1", net(), "block2", examples(), device="cpu").save(file)
    real = nn.Conv2d.forward
    monkeypatch.setattr(sys.modules["suture.compare.stitched_network"], "_check_code", lambda *args: None)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: real(self, x) * 2)
    with pytest.raises(SutureError, match="other outputs of the source network"):
        suture.load_stitched(file, net(), net())
